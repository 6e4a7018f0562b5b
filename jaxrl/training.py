"""One generation of a search, from its plan to its last report, and what is written meanwhile."""

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from jaxrl.best import BestPolicies
from jaxrl.checkpoints import Checkpoints
from jaxrl.errors import SweepError, brief
from jaxrl.lease import Lease
from jaxrl.population.layout import Layout
from jaxrl.population.plan import Plan
from jaxrl.population.program import ProgramStore
from jaxrl.population.report import Report
from jaxrl.population.snapshot import Control
from jaxrl.population.train import train
from jaxrl.rundir import RunDirectory
from jaxrl.search.generation import Generation
from jaxrl.search.pruners import Pruner
from jaxrl.search.results import Result, Results
from jaxrl.tracking.follower import Follower
from jaxrl.tracking.journal import Journal

LAST_CHECKPOINT_SECONDS = 5.0
"""What a checkpoint may take, about, for which a sweep that is told to stop still waits."""


class Display(Protocol):
    """What shows a sweep while it runs."""

    def start(
        self,
        plan: Plan,
        results: Results,
        follower: Follower | None,
        steps: Sequence[int],
        title: str,
    ) -> None:
        """``steps``: how many each agent has taken already; ``title``: which generation this is."""

    def say(self, text: str) -> None:
        """Shows a line, but not between :meth:`start` and :meth:`stop`."""

    def update(self, report: Report) -> None: ...
    def stop(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Books:
    """What the generations of a sweep have in common: where everything is written, and programs."""

    directory: RunDirectory
    journal: Journal
    lease: Lease
    recorded: Mapping[tuple[str, int], Collection[int]]
    """By kind and step the agents that the journal had such a report of."""
    checkpoint_every: float | None
    store: ProgramStore


@contextlib.contextmanager
def storage_errors(directory: RunDirectory) -> Iterator[None]:
    """Says what a failed write means."""
    path = directory.path
    try:
        yield
    except OSError as error:
        raise SweepError(
            f"{path} cannot be written to: {brief(error)}. What was written before is whole: once "
            f"there is room, go on with --resume {path}."
        ) from error


class Training:
    """Trains a generation.

    Args:
        results: of its agents, in their order, from number ``base`` on.
        decided: for each rung that was decided before its agents that stopped there, numbered in
            the generation.
    """

    def __init__(
        self,
        generation: Generation,
        plan: Plan,
        results: Results,
        base: int,
        best: BestPolicies,
        pruner: Pruner | None,
        decided: Mapping[int, Sequence[int]],
        books: Books,
    ) -> None:
        self._generation = generation
        self._plan = plan
        self._results = results
        self._shift = generation.first - base
        """From a number in the generation to one in the results."""
        self._best = best
        self._pruner = pruner
        self._books = books
        self._control = Control()
        with storage_errors(books.directory):
            self._checkpoints = Checkpoints(
                books.directory.checkpoints,
                self._control,
                books.checkpoint_every,
                before_commit=books.journal.sync,
                expected_bytes=plan.state_bytes,
                generation=generation.number,
            )
        self._stopped: set[int] = set()
        self._layouts = [Layout.of(plan)]
        for rung, stopped in sorted(decided.items()):
            self._pass(rung, stopped)

    @property
    def trouble(self) -> str | None:
        """Why the last checkpoint could not be written."""
        return self._checkpoints.trouble

    def stop(self) -> None:
        """Ends it after the chunks under way; safe in a signal handler."""
        self._control.stop(self._checkpoints.seconds_to_write() <= LAST_CHECKPOINT_SECONDS)

    def warnings(self) -> list[str]:
        """What a user should know before it begins."""
        size, path = self._plan.state_bytes, self._books.directory.path
        free = shutil.disk_usage(path).free
        if free >= 2 * size:  # the last two, whose replay is shared
            return []
        return [
            f"a checkpoint may take up to {size / 2**20:,.0f} MiB, and "
            f"{free / 2**20:,.0f} MiB are free in {path}"
        ]

    def run(self, display: Display, follower: Follower | None, title: str) -> str:
        """Trains until the end, or until :meth:`stop`; ``finished`` or ``killed``."""
        plan, checkpoints, lease = self._plan, self._checkpoints, self._books.lease
        ended = {i for i in range(len(plan.agents)) if self._result(i).has_ended}
        passed, saved = checkpoints.load([layout.agents for layout in self._layouts], ended)
        layout = self._layouts[passed]
        # Who has finished, and not just stopped, may yet share a tile with others after a rung.
        out = ended if passed == len(self._layouts) - 1 else self._stopped
        finished = {number for number, agents in layout.agents.items() if out.issuperset(agents)}
        steps = np.zeros(len(plan.agents), int)
        for number, agents in layout.agents.items():
            at = plan.budget.steps if number in finished else 0
            steps[list(agents)] = saved[number].step if number in saved else at
        display.start(plan, self._results, follower, steps.tolist(), title)
        checkpoints.start()
        rungs = self._pruner.rungs[passed:] if self._pruner else ()
        store = self._books.store
        reports = train(plan, self._control, saved, finished, rungs, layout, store)
        try:
            with contextlib.closing(reports), storage_errors(self._books.directory):
                self._judge()
                for report in reports:
                    lease.check()
                    self._take(report)
                    display.update(report)
        finally:
            checkpoints.close(discard=lease.is_lost)
            display.stop()
        is_over = all(self._result(i).has_ended for i in range(len(plan.agents)))
        return "finished" if is_over else "killed"

    def _result(self, index: int) -> Result:
        return self._results.of_agent[self._shift + index]

    def _take(self, report: Report) -> None:
        """What a report says, kept: the policies before the journal, and the snapshot after it."""
        in_results = dataclasses.replace(report, agents=report.agents + self._shift)
        self._results.update(in_results)
        self._best.update(in_results)
        self._write("evaluation", report, report.evaluation)
        self._write("final", report, report.final)
        if report.step == self._rung:
            self._judge()
        self._checkpoints.add(report)

    def _write(self, kind: str, report: Report, metrics: Mapping[str, np.ndarray] | None) -> None:
        """Appends what is new of a report; what an earlier process had written stands."""
        if metrics is None:
            return
        known = self._books.recorded.get((kind, report.step), ())
        agents = report.agents + self._generation.first
        new = [place for place, agent in enumerate(agents.tolist()) if agent not in known]
        if not new:
            return
        spent = np.array([self._result(i).device_seconds for i in report.agents])
        columns = {name: v[new] for name, v in {**metrics, "device_seconds": spent}.items()}
        self._books.journal.append(kind, step=report.step, agents=agents[new], metrics=columns)

    @property
    def _rung(self) -> int | None:
        """The next that is to be decided."""
        rungs = self._pruner.rungs[len(self._layouts) - 1 :] if self._pruner else ()
        return next(iter(rungs), None)

    def _judge(self) -> None:
        """Decides the next rung if everybody who is left has reached it."""
        rung = self._rung
        if self._pruner is None or rung is None:
            return
        everybody = range(len(self._plan.agents))
        if not all(i in self._stopped or rung in self._result(i).evaluations for i in everybody):
            return
        left = [i for i in everybody if i not in self._stopped]
        configs = dict.fromkeys(self._generation.configs[i] for i in left)
        scores = {config: self._results.score_at(config, rung) for config in configs}
        ended = self._pruner.stopped(rung, scores)
        stopped = [i for i in left if self._generation.configs[i] in ended]
        agents = [self._generation.first + i for i in stopped]
        self._books.journal.append("rung", step=rung, agents=agents)
        self._results.prune(self._shift + i for i in stopped)
        self._pass(rung, stopped)

    def _pass(self, rung: int, stopped: Sequence[int]) -> None:
        self._stopped |= set(stopped)
        self._layouts.append(self._layouts[-1].without(stopped))
        self._control.decide(rung, stopped)
