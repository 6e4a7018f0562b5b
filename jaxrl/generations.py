"""A search under way in its run directory: one generation after another, then perhaps finalists."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from jaxrl.best import BestPolicies
from jaxrl.conclusion import Conclusion
from jaxrl.history import History
from jaxrl.lease import Lease
from jaxrl.mending import mend
from jaxrl.population.program import ProgramStore
from jaxrl.preparation import PreparedSweep
from jaxrl.report.writer import LiveReport
from jaxrl.rundir import RunDirectory
from jaxrl.search.generation import FINALISTS, SEARCH, VERIFICATION
from jaxrl.search.mirror import StudyCopy
from jaxrl.search.models import MODELS
from jaxrl.signals import handled_by
from jaxrl.succession import Succession
from jaxrl.tracking.journal import Journal, Record, read
from jaxrl.tracking.session import Session
from jaxrl.training import Books, Display, Training, storage_errors

DRAIN_SECONDS = 60.0
"""How long the end of a sweep waits for its tracker."""
HASTY_DRAIN_SECONDS = 2.0
"""The same where the machine is about to be taken away (SIGTERM)."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    conclusion: Conclusion
    directory: RunDirectory
    status: str
    """``finished`` or ``killed``."""
    signal: int | None = None
    """What ended it before its time."""
    was_finished: bool = False
    """Whether there was nothing left to do."""
    tracked: bool | None = None
    """Whether the tracker has everything; None without one."""
    tracking_uri: str | None = None
    registered: str | None = None
    """The winner's address in the tracker's registry."""
    notes: tuple[str, ...] = ()
    """What a user should know, a line each."""


class Search:
    """Trains what a sweep asks for, from where its run directory is."""

    def __init__(
        self,
        sweep: PreparedSweep,
        directory: RunDirectory,
        session: Session | None,
        display: Display,
        checkpoint_every: float | None,
        copy: StudyCopy | None,
    ) -> None:
        self._copy = copy
        self._sweep = sweep
        self._directory = directory
        self._session = session
        self._display = display
        self._checkpoint_every = checkpoint_every
        self._history = history = History(sweep.spec, sweep.generation)
        self._best = {
            SEARCH: BestPolicies(sweep, history.results, directory),
            VERIFICATION: BestPolicies(
                sweep, history.results, directory, "verified", one_each=True
            ),
            FINALISTS: BestPolicies(
                sweep, history.finalists, directory, "finalists", one_each=True
            ),
        }
        self._succession = Succession(sweep, history)
        self._report = LiveReport(directory, sweep.plan.env)
        self._plan = sweep.plan
        """Of the last generation, once it is trained."""
        self._signals: list[int] = []
        self._training: Training | None = None

    def run(self, is_new: bool) -> Outcome:
        lease = Lease(self._directory.path)
        try:
            with storage_errors(self._directory):
                first = History(self._sweep.spec, self._sweep.generation)
                if damage := mend(self._directory, first):
                    self._display.say(damage)
            last = self._recall()
            if last is not None and last["kind"] == "end" and last["status"] == "finished":
                self._copy_study()
                conclusion = self._conclude("finished")
                return self._outcome("finished", conclusion, self._send_rest(), was_finished=True)
            for best in self._best.values():
                best.recall()
            with storage_errors(self._directory):
                journal = Journal(self._directory.journal, after=last["time"] if last else 0)
                journal.append("begin")
            every, store = self._checkpoint_every, ProgramStore()
            books = Books(self._directory, journal, lease, self._history.recorded, every, store)
            return self._search(books, is_new)
        finally:
            lease.release()

    def _send_rest(self) -> bool | None:
        """Of a finished sweep what its tracker has missed; whether it has everything."""
        if self._session is None:
            return None
        self._session.start(self._directory, is_new=False)
        return self._session.send_all(self._display.say)

    def _recall(self) -> Record | None:
        """Takes over what the journal says; its last record."""
        last = None
        for last, _ in read(self._directory.journal):
            self._history.take(last)
        return last

    def _search(self, books: Books, is_new: bool) -> Outcome:
        if self._session is not None:
            with storage_errors(self._directory):
                self._session.start(self._directory, is_new)
            if self._session.per_hour is not None:
                self._display.say(f"tracking: {self._session.estimate()}")
        status = "failed"
        self._report.start()
        try:
            with self._stop_on_signals():
                while self._next(books):
                    if (status := self._train(books)) != "finished":
                        break
                    status = "failed"  # until it is known what comes next
                else:
                    status = "finished"
        finally:
            conclusion = self._conclude(status)
            if not books.lease.is_lost:  # else it is another's
                self._write_end(status, conclusion, books)
            self._report.finish(None if self._is_hasty(status) else conclusion)
            tracked = self._drain(status)
        return self._outcome(status, conclusion, tracked)

    def _next(self, books: Books) -> bool:
        """Makes sure that the last generation has something left to do; false where all is done."""
        last, (results, base) = self._history.last, self._history.place()
        if not all(result.has_ended for result in results.of_agent[last.first - base :]):
            if last is not self._sweep.generation:  # it was interrupted
                self._plan = self._sweep.plan_of(last)
            return True
        self._copy_study()
        began = time.monotonic()
        generation = self._succession.following()
        if generation is None:
            return False
        seconds = round(time.monotonic() - began, 3)
        self._plan = self._sweep.plan_of(generation)  # refuses what cannot be trained
        sampler = self._sweep.spec.sampler
        if sampler in MODELS and generation.stage == SEARCH:
            count = len(generation.configurations)
            self._display.say(f"{sampler} proposed {count} configurations in {seconds:.1f} s")
        with storage_errors(self._directory):
            books.journal.append("generation", **generation.to_record(), sampler_seconds=seconds)
        self._history.begin(generation)
        return True

    def _copy_study(self) -> None:
        if self._copy is not None:
            self._copy.send(self._history.results.told())

    def _train(self, books: Books) -> str:
        generation = self._history.last
        self._training = Training(
            generation,
            self._plan,
            *self._history.place(),
            self._best[generation.stage],
            self._sweep.judge(generation),
            self._history.decided,
            books,
        )
        if self._signals:
            return "killed"
        for warning in self._training.warnings():
            self._display.say(f"warning: {warning}")
        follower = None if self._session is None else self._session.follower
        return self._training.run(self._display, follower, self._succession.title())

    def _write_end(self, status: str, conclusion: Conclusion, books: Books) -> None:
        """Writes what is known at the end, the journal last: it says that the rest is there."""
        directory = self._directory
        with (
            contextlib.suppress(OSError) if status == "failed" else storage_errors(self._directory)
        ):
            conclusion.write(directory)
            if conclusion.finalists:
                self._best[FINALISTS].save(self._history.finalists.ranking())
            elif len(self._best[VERIFICATION]):
                self._best[VERIFICATION].save(self._history.results.ranking())
            else:
                self._best[SEARCH].save()
            conclusion.note(books.journal)
            books.journal.append("end", status=status)
        books.journal.close()
        if status == "finished":
            directory.remove(directory.checkpoints)

    def _conclude(self, status: str) -> Conclusion:
        spec, env, history = self._sweep.spec, self._sweep.plan.env, self._history
        is_finished = status == "finished"
        return Conclusion(spec, env, history.results, history.finalists, is_finished)

    def _is_hasty(self, status: str) -> bool:
        """Whether there may be no time for more than what is needed to go on."""
        return signal.SIGTERM in self._signals or status == "failed"

    def _drain(self, status: str) -> bool | None:
        """Gives the tracker time; whether it has everything."""
        if self._session is None:
            return None
        try:
            seconds = HASTY_DRAIN_SECONDS if self._is_hasty(status) else DRAIN_SECONDS
            return self._session.finish(seconds, may_register=status == "finished")
        except KeyboardInterrupt:  # who does not want to wait for it
            return False

    def _outcome(
        self,
        status: str,
        conclusion: Conclusion,
        tracked: bool | None,
        was_finished: bool = False,
    ) -> Outcome:
        trouble = None if self._training is None else self._training.trouble
        notes = [trouble] if trouble and status != "finished" else []
        if self._report.trouble:
            notes.append(self._report.trouble)
        if self._copy is not None and (trouble := self._copy.close()):
            notes.append(trouble)
        if self._session is not None:
            notes += self._session.tracker.notes
            if not tracked:
                reason = self._session.trouble or "it is too slow"
                notes.append(f"the tracker did not receive everything ({reason})")
        return Outcome(
            conclusion,
            self._directory,
            status,
            signal=self._signals[0] if self._signals else None,
            was_finished=was_finished,
            tracked=tracked,
            tracking_uri=self._session.tracker.uri if self._session else None,
            registered=self._session.registered if self._session else None,
            notes=tuple(notes),
        )

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Ends the training at the first SIGINT or SIGTERM; a second SIGINT interrupts as usual."""

        def stop(number: int, _: FrameType | None) -> None:
            self._signals.append(number)
            if len(self._signals) > 1 and number == signal.SIGINT:
                raise KeyboardInterrupt
            if self._training is not None:
                self._training.stop()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with handled_by(stop, (signal.SIGINT, signal.SIGTERM)):
            yield
