"""Carries the journal to a tracker, on its own thread and at its own pace.

Training writes the journal and goes on. The follower reads it from behind: what has piled up
since it last looked becomes one update a run, so a slow tracker gets fewer and larger requests, and
memory stays bounded. A tracker that fails for a while is tried again; one that refuses for good is
left alone, and training goes on.
"""

import functools
import itertools
import math
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from jaxrl.errors import brief
from jaxrl.tracking import journal
from jaxrl.tracking.mlflow_tracker import TrackerError
from jaxrl.tracking.projection import Projection, RunUpdate, merge

T = TypeVar("T")

_POLL_SECONDS = 0.5
_RECORDS_AT_ONCE = 500
_LONGEST_PAUSE = 30.0


class Tracker(Protocol):
    """What takes run updates. ``apply`` may raise; the same update is then applied again, unless
    it raised ``TrackerError``."""

    def apply(self, update: RunUpdate) -> None: ...


class Follower:
    """Follows ``directory`` until :meth:`finish`."""

    def __init__(self, directory: pathlib.Path, projection: Projection, tracker: Tracker) -> None:
        self._directory = directory
        self._projection = projection
        self._tracker = tracker
        self._position = journal.Position()
        self._finishing = threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._run, name="jaxrl-follower", daemon=True)
        self._oldest_pending: int | None = None
        self._trouble: str | None = None
        self._complete = False

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds until everything is delivered; whether it is."""
        self._deadline = time.monotonic() + timeout
        self._finishing.set()
        self._thread.join(timeout)
        return self._complete

    @property
    def trouble(self) -> str | None:
        """What last went wrong, until it works again."""
        return self._trouble

    def seconds_behind(self) -> float:
        """Age in seconds of the oldest record under way to the tracker; 0 where there is none."""
        oldest = self._oldest_pending
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)

    def _run(self) -> None:
        try:
            while not self._complete:
                finishing = self._finishing.is_set()  # before reading: nothing is written after it
                updates = self._persist(self._read)
                for update in updates:
                    self._persist(functools.partial(self._tracker.apply, update))
                if self._oldest_pending is None:
                    self._complete = finishing
                    self._finishing.wait(_POLL_SECONDS)
        except TrackerError as error:
            self._trouble = f"refused: {error}"
        except TimeoutError:
            pass  # the trouble says why

    def _read(self) -> list[RunUpdate]:
        """The merged updates of the next records."""
        updates: list[RunUpdate] = []
        self._oldest_pending = None
        records = journal.read(self._directory, self._position)
        try:
            for record, position in itertools.islice(records, _RECORDS_AT_ONCE):
                updates += self._projection.feed(record)
                self._position = position
                self._oldest_pending = self._oldest_pending or record["time"]
        except OSError:
            if self._oldest_pending is None:  # else what was read goes out first
                raise
        return merge(updates)

    def _persist(self, action: Callable[[], T]) -> T:
        """Does ``action``, again and again if it fails, until :meth:`finish`'s time is up.

        Raises:
            TrackerError: it was refused for good.
            TimeoutError: the time is up.
        """
        pause = 1.0
        while time.monotonic() < self._deadline:
            try:
                result = action()
                self._trouble = None
                return result
            except TrackerError:
                raise
            except Exception as error:  # whatever a client raises may pass
                self._trouble = brief(error)
            pause = min(pause, max(0.0, self._deadline - time.monotonic()))
            if self._finishing.is_set():
                time.sleep(pause)
            else:
                self._finishing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise TimeoutError
