"""Ending on Ctrl-C, SIGTERM and the terminal's end, at moments where nothing is left half done."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from jaxrl.signals import handled_by

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_deferred = False
_pending = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Each of the signals raises ``KeyboardInterrupt`` in the main thread."""
    with handled_by(_interrupt, _SIGNALS):
        yield


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
    global _pending
    if not _deferred:
        raise KeyboardInterrupt
    _pending = True
