"""One generation of a search, from its plan to its last report, and what is written meanwhile."""

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from jaxrl.best import BestPolicies
from jaxrl.checkpoints import Checkpoints
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import SweepError, brief
from jaxrl.lease import Lease
from jaxrl.population.layout import Copy, Layout, Verdict
from jaxrl.population.plan import Plan
from jaxrl.population.program import ProgramStore
from jaxrl.population.report import Report
from jaxrl.population.snapshot import Control
from jaxrl.population.train import train
from jaxrl.rundir import RunDirectory
from jaxrl.search.generation import Generation, copies_record
from jaxrl.search.pbt import Evolution
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
        if not path.is_dir():
            raise SweepError(f"the run directory {path} is gone") from error
        raise SweepError(
            f"{path} cannot be written to: {brief(error)}. What was written before is whole: once "
            f"there is room, go on with --resume {path}."
        ) from error


class Training:
    """Trains a generation.

    Args:
        results: of its agents, in their order, from number ``base`` on.
        judge: who decides at rungs.
        decided: what was decided before, by rung, of agents numbered in the generation.
    """

    def __init__(
        self,
        generation: Generation,
        plan: Plan,
        results: Results,
        base: int,
        best: BestPolicies,
        judge: Pruner | Evolution | None,
        decided: Mapping[int, Verdict],
        books: Books,
    ) -> None:
        self._generation = generation
        self._plan = plan
        self._results = results
        self._shift = generation.first - base
        """From a number in the generation to one in the results."""
        self._best = best
        self._judge = judge
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
        self._verdicts: list[Verdict] = []
        """Of the rungs so far; after each of them there is another layout."""
        self._rungs = [*generation.scheduled, *(judge.rungs if judge else ())]
        known = sorted({**generation.scheduled, **decided}.items())
        for rung, verdict in known:
            self._pass(rung, verdict)
        # Who was stopped need not be trained again, but who became a copy has to become one.
        self._anew = len([*itertools.takewhile(lambda rung: not rung[1].copies, known)])

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
        with storage_errors(self._books.directory):
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
        tiles = [layout.agents for layout in self._layouts]
        passed, saved = checkpoints.load(tiles, ended, self._anew)
        if checkpoints.damaged:
            since = "an earlier one" if saved else "the beginning"
            found = ", ".join(checkpoints.damaged)
            display.say(f"warning: checkpoint {found} cannot be read: training again from {since}")
        layout = self._layouts[passed]
        # Who has finished, and not just stopped, may yet share a tile with others after a rung.
        out = ended if passed == len(self._layouts) - 1 else self._verdicts[passed].stopped
        finished = {number for number, agents in layout.agents.items() if out.issuperset(agents)}
        steps = np.zeros(len(plan.agents), int)
        for number, agents in layout.agents.items():
            at = plan.budget.steps if number in finished else 0
            steps[list(agents)] = saved[number].step if number in saved else at
        display.start(plan, self._results, follower, steps.tolist(), title)
        checkpoints.start()
        rungs, store = self._rungs[passed:], self._books.store
        reports = train(plan, self._control, saved, finished, rungs, layout, store)
        try:
            with contextlib.closing(reports), storage_errors(self._books.directory):
                self._decide()
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
            self._decide()
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
        return next(iter(self._rungs[len(self._layouts) - 1 :]), None)

    def _decide(self) -> None:
        """Decides the next rung if everybody who is left has reached it."""
        rung = self._rung
        if rung is None:
            return
        everybody = range(len(self._plan.agents))
        if not all(i in self._stopped or rung in self._result(i).evaluations for i in everybody):
            return
        left = [i for i in everybody if i not in self._stopped]
        if isinstance(self._judge, Evolution):
            verdict = self._copies(self._judge, rung)
        else:
            assert self._judge is not None
            verdict = self._stop(self._judge, rung, left)
        self._pass(rung, verdict)

    def _stop(self, pruner: Pruner, rung: int, left: Sequence[int]) -> Verdict:
        """Ends the configurations that a pruner stops."""
        configs = dict.fromkeys(self._generation.configs[i] for i in left)
        scores = {config: self._results.score_at(config, rung) for config in configs}
        ended = pruner.stopped(rung, scores)
        stopped = [i for i in left if self._generation.configs[i] in ended]
        agents = [self._generation.first + i for i in stopped]
        self._books.journal.append("rung", step=rung, agents=agents)
        self._results.prune(self._shift + i for i in stopped)
        return Verdict(frozenset(stopped))

    def _copies(self, evolution: Evolution, rung: int) -> Verdict:
        """Has the worst agents go on as changed copies of the best."""
        everybody = range(len(self._plan.agents))
        scores = {i: self._result(i).evaluation_at(rung) for i in everybody}
        layout = self._layouts[-1]
        values = {i: dataclasses.asdict(layout.configuration(i)) for i in everybody}
        copies = {
            agent: Copy(source, Configuration.create(new, self._plan.budget.steps))
            for agent, (source, new) in evolution.copies(rung, scores, values).items()
        }
        record = copies_record(rung, copies, self._generation.first)
        self._books.journal.append("copies", **record)
        self._results.copy(rung, copies, self._shift)
        return Verdict(copies=copies)

    def _pass(self, rung: int, verdict: Verdict) -> None:
        self._stopped |= verdict.stopped
        self._verdicts.append(verdict)
        self._layouts.append(self._layouts[-1].after(verdict))
        self._control.decide(rung, verdict)
