"""Signal handlers for a while."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextlib.contextmanager
def handled_by(handler: Handler, signals: Sequence[signal.Signals]) -> Iterator[None]:
    """``handler`` gets ``signals`` in this block, which must run on the main thread."""
    before = [signal.signal(number, handler) for number in signals]
    try:
        yield
    finally:
        for number, earlier in zip(signals, before, strict=True):
            signal.signal(number, earlier)
