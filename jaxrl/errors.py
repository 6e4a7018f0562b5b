"""Errors that a user can mend: each says what is wrong, what was given, and what to do."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used. Commands print its one line and exit with 2."""

    @classmethod
    def unknown(cls, what: str, name: str, known: Iterable[str]) -> "InputError":
        """An error for ``name`` that is none of ``known``, with the nearest of them."""
        known = list(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return cls(f"unknown {what} {name!r}: {hint}Known are {', '.join(known)}.")
