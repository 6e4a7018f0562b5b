"""Carries the journal to a tracker, on its own thread and at its own pace.

Training writes the journal and goes on. The follower reads it from behind: what has piled up
since it last looked becomes one update a run, so a slow tracker gets fewer and larger requests, and
memory stays bounded. A tracker that fails for a while is tried again; one that refuses for good is
left alone, and training goes on. What has arrived is kept on disk, so that another process can go on.
"""

import functools
import math
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from jaxrl.errors import brief, named
from jaxrl.tracking import journal
from jaxrl.tracking.budget import Budget
from jaxrl.tracking.delivery import Delivery
from jaxrl.tracking.projection import Projection, RunUpdate, merge
from jaxrl.tracking.selection import Selection
from jaxrl.tracking.tracker import Tracker, TrackerError

T = TypeVar("T")

_POLL_SECONDS = 0.5
_POINTS_AT_ONCE = 250_000
"""That are read before they are sent: enough for large requests, and no more than memory for."""
_REST = 9.0
"""Times what sending took, after which it is done again: a server on the same machine takes its
processor's time from the training."""
_LONGEST_REST = 60.0
_LONGEST_PAUSE = 30.0


class Follower:
    """Follows ``directory`` until :meth:`finish`.

    Args:
        selection: what is sent when; everything at once where it is not given.
        budget: of requests; no limit where it is not given.
        delivery: what has arrived already; nothing, and not kept, where it is not given.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        projection: Projection,
        tracker: Tracker,
        *,
        selection: Selection | None = None,
        budget: Budget | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        self._directory = directory
        self._projection = projection
        self._tracker = tracker
        self._selection = selection
        self._budget = budget or Budget(None)
        self._delivery = delivery
        self._position = journal.Position()
        self._finishing = threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._run, name="jaxrl-follower", daemon=True)
        self._oldest_pending: int | None = None
        self._trouble: str | None = None
        self._complete = False
        self._sending = 0.0
        """Seconds of successful sending since the last rest."""

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds until everything is delivered; whether it is."""
        self._deadline = time.monotonic() + timeout
        self._finishing.set()
        self._thread.join(timeout)
        return self._complete

    def wait(self, seconds: float) -> bool:
        """Waits up to ``seconds`` for it to have delivered all that there is to read, or to have
        given up; whether it has."""
        self._finishing.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

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
                self._sending = 0.0
                for update in self._persist(self._read):
                    self._persist(functools.partial(self._send, update))
                if self._oldest_pending is None:
                    self._complete = finishing
                    self._finishing.wait(self._budget.pause(_POLL_SECONDS))
                elif not finishing:
                    rest = min(_LONGEST_REST, _REST * self._sending)
                    self._finishing.wait(self._budget.pause(rest))
        except TrackerError as error:
            self._trouble = f"refused: {error}"
        except TimeoutError:
            pass  # the trouble says why
        finally:
            self._keep_record()

    def _keep_record(self) -> None:
        if self._delivery is not None:
            try:
                self._delivery.write()
            except OSError as error:
                self._trouble = self._trouble or brief(error)

    def _send(self, update: RunUpdate) -> None:
        """Applies an update, in the budget."""
        seconds = self._budget.seconds_until_free()
        if seconds > 0:
            raise BlockingIOError(f"the hour's requests are used up for {seconds / 60:.0f} minutes")
        before, began = self._tracker.requests, time.monotonic()
        try:
            self._tracker.apply(update)
        finally:
            self._budget.spend(self._tracker.requests - before)
        self._sending += time.monotonic() - began
        if self._delivery is not None:
            self._delivery.arrived(update, self._tracker.state)

    def _read(self) -> list[RunUpdate]:
        """The merged updates of the next records."""
        updates, points = list[RunUpdate](), 0
        self._oldest_pending = None
        records = journal.read(self._directory, self._position)
        try:
            for record, position in records:
                new = self._project(record)
                updates += new
                self._position = position
                self._oldest_pending = self._oldest_pending or record["time"]
                points += sum(len(update.metrics) for update in new)
                if points >= _POINTS_AT_ONCE:
                    break
        except OSError:
            if self._oldest_pending is None:  # else what was read goes out first
                raise
        if self._delivery is not None:
            updates = list(self._without_delivered(updates, self._delivery))
        if self._selection is not None:
            updates = list(self._selection.pass_on(updates))
        return merge(updates)

    def _project(self, record: journal.Record) -> list[RunUpdate]:
        try:
            return list(self._projection.feed(record))
        except journal.DAMAGED as error:
            raise TrackerError(
                f"the journal is damaged: a record of kind {record['kind']} cannot be sent "
                f"({named(error)})"
            ) from None

    def _without_delivered(
        self, updates: Iterable[RunUpdate], delivery: Delivery
    ) -> Iterator[RunUpdate]:
        """Those that have not arrived yet; what the others say counts for whom is sent."""
        for update in updates:
            if delivery.is_new(update):
                yield update
            elif self._selection is not None:
                self._selection.note(update)

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
