"""Errors that a user can mend: each says what is wrong, what was given, and what to do."""

import difflib
import re
import textwrap
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


class SweepError(RuntimeError):
    """A sweep cannot go on, though nothing was wrong with what it was given. Commands print its one
    line and exit with 1."""


class ServeError(RuntimeError):
    """What is served cannot be, or no longer. Commands print its one line and exit with 1."""


def without_secrets(text: str) -> str:
    """``text`` without the user and password of addresses in it."""
    return re.sub(r"(?<=://)(?!USER:PASSWORD@)\S*@", "***@", text)


def named(error: BaseException) -> str:
    """An exception's type and all that it says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def brief(error: BaseException) -> str:
    """What an exception says, in one short line: of a failed connection, the system's reason."""
    text = without_secrets(" ".join(str(error).split()))
    reason = re.search(r"\[Errno -?\d+\] ([A-Z][\w ]+)", text)
    if reason:
        return reason[1].strip().lower()
    if "timed out" in text:
        return "no answer in time"
    return textwrap.shorten(text, 200, placeholder=" …") or type(error).__name__
