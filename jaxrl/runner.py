"""A sweep from its specification to its results: what ``python -m jaxrl.sweep`` composes."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from jaxrl.best import BestPolicies
from jaxrl.checkpoints import Checkpoints
from jaxrl.errors import InputError, SweepError, brief
from jaxrl.lease import Lease
from jaxrl.population.plan import Plan
from jaxrl.population.report import Report
from jaxrl.population.snapshot import Control
from jaxrl.population.train import train
from jaxrl.rundir import SPECIFICATION, RunDirectory, refuse_existing
from jaxrl.search.results import Results
from jaxrl.specification import PreparedSweep, SavedSweep, describe, to_json
from jaxrl.tracking.follower import Follower
from jaxrl.tracking.journal import Journal, Record, read
from jaxrl.tracking.session import Session, Tracking, address, open_tracker

DRAIN_SECONDS = 60.0
"""How long the end of a sweep waits for its tracker."""
HASTY_DRAIN_SECONDS = 2.0
"""The same where the machine is about to be taken away (SIGTERM)."""
LAST_CHECKPOINT_SECONDS = 5.0
"""What a checkpoint may take, about, for which a sweep that is told to stop still waits."""


class Display(Protocol):
    """What shows a sweep while it runs."""

    def start(
        self, plan: Plan, results: Results, follower: Follower | None, steps: Sequence[int]
    ) -> None:
        """``steps``: how many each agent has taken already."""

    def say(self, text: str) -> None:
        """Shows a line, before :meth:`start`."""

    def update(self, report: Report) -> None: ...
    def stop(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    results: Results
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
    notes: tuple[str, ...] = ()
    """What a user should know, a line each."""


def begin(
    sweep: PreparedSweep,
    run_dir: pathlib.Path,
    *,
    display: Display,
    tracking: Tracking | None = None,
    experiment: str = "jaxrl",
    checkpoint_every: float | None = None,
) -> Outcome:
    """Trains a prepared sweep into a new ``run_dir``; SIGINT and SIGTERM end it cleanly.

    Args:
        tracking: None to train without a tracker.
        checkpoint_every: seconds; None for the default of :mod:`jaxrl.checkpoints`.

    Raises:
        InputError: the run directory exists or the tracker cannot be used; nothing was trained.
        SweepError: it cannot go on; what was done can be resumed.
    """
    description = describe(sweep, run_dir.name, experiment)
    refuse_existing(run_dir)
    session = None
    if tracking is not None:
        session = Session(open_tracker(tracking.uri, description), description, tracking)
        for line in session.tracker.connect():
            display.say(line)
    directory = RunDirectory.make(run_dir)
    directory.write_json(SPECIFICATION, to_json(sweep, description))
    return _Training(sweep, directory, session, display, checkpoint_every).run(is_new=True)


def resume(
    saved: SavedSweep,
    sweep: PreparedSweep,
    *,
    display: Display,
    tracking: Tracking | None = None,
    checkpoint_every: float | None = None,
) -> Outcome:
    """Goes on with the sweep in a run directory, to the numbers that it would have had.

    A tracker that does not answer is no reason not to train; it is tried again meanwhile. Arguments
    and errors are those of :func:`begin`; ``tracking`` without an address means where it was tracked
    before, if it was.
    """
    session = None
    if tracking is not None:
        if uri := address(tracking.uri, saved.directory):
            tracker = open_tracker(uri, saved.description)
            session = Session(tracker, saved.description, tracking)
            _try_to_connect(session, display)
        else:
            display.say("not tracked, as before: --tracking-uri would, also what there is already")
    directory = RunDirectory(saved.directory)
    return _Training(sweep, directory, session, display, checkpoint_every).run(is_new=False)


def _try_to_connect(session: Session, display: Display) -> None:
    """Says whether the tracker can be used; it is tried again while training."""
    try:
        lines = session.tracker.connect()
    except InputError as error:
        lines = [f"warning: {error}"]
    for line in lines:
        display.say(line)


class _Training:
    """A sweep under way in its run directory."""

    def __init__(
        self,
        sweep: PreparedSweep,
        directory: RunDirectory,
        session: Session | None,
        display: Display,
        checkpoint_every: float | None,
    ) -> None:
        self._sweep = sweep
        self._directory = directory
        self._session = session
        self._display = display
        self._checkpoint_every = checkpoint_every
        plan, spec = sweep.plan, sweep.spec
        self._results = Results(plan.agents, sweep.configs, spec.final_episodes, spec.select)
        self._best = BestPolicies(sweep, self._results, directory)
        self._control = Control()
        self._recorded: set[tuple[str, int, int]] = set()
        self._signals: list[int] = []

    def run(self, is_new: bool) -> Outcome:
        lease = Lease(self._directory.path)
        try:
            last = self._recall()
            if last is not None and last["kind"] == "end" and last["status"] == "finished":
                return Outcome(self._results, self._directory, "finished", was_finished=True)
            self._best.recall()
            with self._storage_errors():
                journal = Journal(self._directory.journal, after=last["time"] if last else 0)
                journal.append("begin")
            return self._train(journal, lease, is_new)
        finally:
            lease.release()

    def _recall(self) -> Record | None:
        """Takes over what the journal says; its last record."""
        last = None
        for last, _ in read(self._directory.journal):
            if last["kind"] in ("evaluation", "final"):
                self._results.update(_as_report(last))
                self._recorded.add((last["kind"], last["step"], last["agents"][0]))
        return last

    def _train(self, journal: Journal, lease: Lease, is_new: bool) -> Outcome:
        plan = self._sweep.plan
        with self._storage_errors():
            checkpoints = Checkpoints(
                self._directory.checkpoints,
                self._control,
                self._checkpoint_every,
                before_commit=journal.sync,
                expected_bytes=plan.state_bytes,
            )
        ended = {i for i, result in enumerate(self._results.of_agent) if result.has_ended}
        tiles = [members for _, members in plan.tiles]
        finished = {index for index, members in enumerate(tiles) if ended.issuperset(members)}
        saved = checkpoints.load(tiles, finished)
        steps = np.zeros(len(plan.agents), int)
        for index, members in enumerate(tiles):
            at = plan.budget.steps if index in finished else 0
            steps[list(members)] = saved[index].step if index in saved else at
        self._say_what_it_takes()
        if self._session is not None:
            with self._storage_errors():
                self._session.start(self._directory, is_new)
        follower = None if self._session is None else self._session.follower
        self._display.start(plan, self._results, follower, steps.tolist())
        checkpoints.start()
        status, reports = "failed", train(plan, self._control, saved, finished)
        try:
            with self._stop_on_signals(checkpoints), contextlib.closing(reports):
                for report in reports:
                    lease.check()
                    with self._storage_errors():
                        self._take(report, journal, checkpoints)
            all_ended = all(result.has_ended for result in self._results.of_agent)
            status = "finished" if all_ended else "killed"
        finally:
            checkpoints.close(discard=lease.is_lost)
            self._display.stop()
            if not lease.is_lost:  # else it is another's
                self._write_end(status, journal)
            tracked = self._drain(status)
        return self._outcome(status, tracked, checkpoints)

    def _say_what_it_takes(self) -> None:
        size = self._sweep.plan.state_bytes
        free = shutil.disk_usage(self._directory.path).free
        if free < 2 * size:  # the last two, whose replay is shared
            self._display.say(
                f"warning: a checkpoint may take up to {size / 2**20:,.0f} MiB, and "
                f"{free / 2**20:,.0f} MiB are free in {self._directory.path}"
            )
        if self._session is not None and self._session.per_hour is not None:
            self._display.say(f"tracking: {self._session.estimate()}")

    def _take(self, report: Report, journal: Journal, checkpoints: Checkpoints) -> None:
        """What a report says, kept: the policies before the journal, and the snapshot after it."""
        self._results.update(report)
        self._best.update(report)
        for kind, metrics in (("evaluation", report.evaluation), ("final", report.final)):
            if metrics is not None and (kind, report.step, report.agents[0]) not in self._recorded:
                journal.append(kind, step=report.step, agents=report.agents, metrics=metrics)
        checkpoints.add(report)
        self._display.update(report)

    def _write_end(self, status: str, journal: Journal) -> None:
        """Writes what is known at the end, the journal last: it says that the rest is there."""
        with contextlib.suppress(OSError) if status == "failed" else self._storage_errors():
            self._directory.write(self._directory.results.name, self._results.to_csv().encode())
            self._best.save()
            journal.append("end", status=status)
        journal.close()
        if status == "finished":
            self._directory.remove(self._directory.checkpoints)

    def _drain(self, status: str) -> bool | None:
        """Gives the tracker time; whether it has everything."""
        if self._session is None:
            return None
        is_hasty = signal.SIGTERM in self._signals or status == "failed"
        try:
            return self._session.finish(HASTY_DRAIN_SECONDS if is_hasty else DRAIN_SECONDS)
        except KeyboardInterrupt:  # who does not want to wait for it
            return False

    def _outcome(self, status: str, tracked: bool | None, checkpoints: Checkpoints) -> Outcome:
        notes = [checkpoints.trouble] if checkpoints.trouble and status != "finished" else []
        if self._session is not None:
            notes += self._session.tracker.notes
            if not tracked:
                reason = self._session.follower.trouble or "it is too slow"
                notes.append(f"the tracker did not receive everything ({reason})")
        return Outcome(
            self._results,
            self._directory,
            status,
            signal=self._signals[0] if self._signals else None,
            tracked=tracked,
            tracking_uri=self._session.tracker.uri if self._session else None,
            notes=tuple(notes),
        )

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Says what a failed write means."""
        try:
            yield
        except OSError as error:
            raise SweepError(
                f"{self._directory.path} cannot be written to: {brief(error)}. What was written before "
                f"is whole: once there is room, go on with --resume {self._directory.path}."
            ) from error

    @contextlib.contextmanager
    def _stop_on_signals(self, checkpoints: Checkpoints) -> Iterator[None]:
        """Ends the training at the first SIGINT or SIGTERM; a second SIGINT interrupts as usual."""

        def stop(number: int, _: Any) -> None:
            self._signals.append(number)
            if len(self._signals) > 1 and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._control.stop(checkpoints.seconds_to_write() <= LAST_CHECKPOINT_SECONDS)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _as_report(record: Record) -> Report:
    """What a record says, as it was reported."""
    metrics = {
        name: np.array([math.nan if value is None else value for value in column])
        for name, column in record["metrics"].items()
    }
    agents, fields = np.array(record["agents"]), {record["kind"]: metrics}
    return Report(
        -1, agents, record["step"], 0, 0.0, 0, fields.get("evaluation"), fields.get("final")
    )
