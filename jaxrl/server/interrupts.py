"""Ending on Ctrl-C, SIGTERM and the terminal's end, at moments where nothing is left half done."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from jaxrl.signals import handled_by

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_deferred = False
_pending = False
_asked = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Each of the signals raises ``KeyboardInterrupt`` in the main thread."""
    global _asked
    _asked = False
    with handled_by(_interrupt, _SIGNALS):
        yield


def check() -> None:
    """Raises ``KeyboardInterrupt`` once more where one was raised and lost: in a finaliser, say, Python
    swallows what is raised. For loops that wait."""
    if _asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """They wait for the end of this, where an exception might be lost or leave a process behind."""
    global _deferred, _pending
    _deferred, _pending = True, False
    try:
        yield
    finally:
        _deferred = False
    if _pending:
        raise KeyboardInterrupt


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """They change nothing: it is ending already."""
    with handled_by(signal.SIG_IGN, _SIGNALS):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _asked, _pending
    _asked = True
    if not _deferred:
        raise KeyboardInterrupt
    _pending = True
