"""Stopping a notebook with a line instead of a traceback."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from jaxrl.errors import InputError, without_secrets

P = ParamSpec("P")
R = TypeVar("R")


class StopNotebook(Exception):  # noqa: N818  # it says what it does
    """Ends a cell, and "Run all" with it."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows for it."""
        return [f"Stopped: {self}"]


def stops(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with errors of what was given shown as a line."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise StopNotebook(without_secrets(str(error))) from None

    return wrapped
