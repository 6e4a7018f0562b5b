"""Carries the journal to a tracker, on its own thread and at its own pace.

Training writes the journal and goes on. The follower reads it from behind: what has piled up
since it last looked becomes one update a run, so a slow tracker gets fewer and larger requests, and
memory stays bounded. A tracker that fails for a while is tried again; one that refuses for good is
left alone, and training goes on.
"""

import pathlib
import threading
import time
from typing import Protocol

from jaxrl.tracking import journal
from jaxrl.tracking.mlflow_tracker import TrackerError
from jaxrl.tracking.projection import Projection, RunUpdate, merge

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
        self._finishing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="jaxrl-follower", daemon=True)
        self._delivered_time: int | None = None
        self._trouble: str | None = None
        self._pending = 0
        self._refused = False

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds until everything is delivered; whether it is."""
        self._deadline = time.monotonic() + timeout
        self._finishing.set()
        self._thread.join(timeout + 20)
        return not self._thread.is_alive() and self._trouble is None and not self._pending

    @property
    def trouble(self) -> str | None:
        """What the tracker last failed with, until it works again."""
        return self._trouble

    def seconds_behind(self) -> float:
        """Age of the newest record that was delivered, in seconds; 0 before the first."""
        if self._delivered_time is None:
            return 0.0
        return max(0.0, time.time() - self._delivered_time / 1000)

    def _run(self) -> None:
        position = journal.Position()
        while True:
            finishing = self._finishing.is_set()  # before reading: nothing is written after it
            updates, position, newest = self._read(position)
            self._pending = len(updates)
            for update in updates:
                if not self._deliver(update):
                    return
                self._pending -= 1
            if newest is not None:
                self._delivered_time = newest
            elif finishing:
                return
            else:
                self._finishing.wait(_POLL_SECONDS)

    def _read(
        self, position: journal.Position
    ) -> tuple[list[RunUpdate], journal.Position, int | None]:
        """The merged updates of the next records, the position after them and the newest's time."""
        updates: list[RunUpdate] = []
        newest = None
        for count, (record, after) in enumerate(journal.read(self._directory, position)):
            updates += self._projection.feed(record)
            position, newest = after, record["time"]
            if count + 1 == _RECORDS_AT_ONCE:
                break
        return merge(updates), position, newest

    def _deliver(self, update: RunUpdate) -> bool:
        """Applies an update, again and again if need be; false where it was given up."""
        pause = 1.0
        while True:
            try:
                self._tracker.apply(update)
                self._trouble = None
                return True
            except TrackerError as error:
                self._trouble = f"refused: {error}"
                return False
            except Exception as error:  # whatever a client raises may pass
                self._trouble = " ".join(str(error).split())[:200]
            if time.monotonic() + pause > self._deadline:
                return False
            self._finishing.wait(pause) if not self._finishing.is_set() else time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
