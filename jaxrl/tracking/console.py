"""How a sweep looks while it runs: a live view in a terminal, plain lines elsewhere."""

import math
import os
import sys
import textwrap
import time
from collections import deque
from collections.abc import Collection, Sequence

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from jaxrl.population.plan import Plan
from jaxrl.population.report import Report
from jaxrl.search.finalists import Finalist
from jaxrl.search.results import Results, course, varying
from jaxrl.search.table import format_cell
from jaxrl.tracking.follower import Follower

_BEST_SHOWN = 5
_RATE_SECONDS = 20.0
_SHORTEST_RATE = 1.0  # seconds from which on a rate says something
_LINE_SECONDS = 10.0
_TROUBLE_LENGTH = 80


class Meter:
    """Progress, speed and time left, from the reports and the ``steps`` that agents had before."""

    def __init__(self, plan: Plan, steps: Sequence[int]) -> None:
        self._steps = plan.budget.steps
        self._step_work = plan.step_seconds()
        self._total_work = sum(self._step_work) * plan.budget.steps
        self.total_steps = len(plan.agents) * plan.budget.steps
        self.steps = sum(steps)
        self.shapes = len(plan.shapes)
        self.shapes_ready = 0
        self._work = float(np.dot(steps, self._step_work))
        self._recent: deque[tuple[float, int, float]] = deque()

    def update(self, report: Report) -> None:
        if report.rung is not None:
            self._drop(report.rung.verdict.stopped, report.step)
            return
        now = time.monotonic()
        if not self._recent:  # compilation is no part of the speed
            self._recent.append((now - report.seconds, self.steps, self._work))
        self.shapes_ready = report.shapes_ready
        self.steps += report.new_steps * len(report.agents)
        self._work += report.new_steps * sum(self._step_work[i] for i in report.agents)
        self._recent.append((now, self.steps, self._work))
        while now - self._recent[0][0] > _RATE_SECONDS and len(self._recent) > 2:
            self._recent.popleft()

    def _drop(self, agents: Collection[int], step: int) -> None:
        """Agents that go no further than ``step`` leave nothing to do."""
        left = self._steps - step
        self._total_work -= left * sum(self._step_work[agent] for agent in agents)
        self.total_steps -= left * len(agents)

    @property
    def has_begun(self) -> bool:
        return bool(self._recent)

    @property
    def fraction(self) -> float:
        """Of the predicted work: fairer than of the steps, since cohorts differ in cost."""
        return min(self._work / self._total_work, 1.0)

    @property
    def steps_per_second(self) -> float:
        """Of all agents together, lately; 0 before that is known."""
        return self._rate(1)

    @property
    def seconds_left(self) -> float:
        """NaN before anything was measured."""
        left, rate = max(self._total_work - self._work, 0.0), self._rate(2)
        if left <= 1e-9 * self._total_work:
            return 0.0
        return left / rate if rate else math.nan

    def _rate(self, column: int) -> float:
        if not self._recent:
            return 0.0
        first, last = self._recent[0], self._recent[-1]
        seconds = last[0] - first[0]
        return (last[column] - first[column]) / seconds if seconds >= _SHORTEST_RATE else 0.0


class ConsoleDisplay:
    """Shows a sweep on ``console``, ``warnings`` first."""

    def __init__(self, console: Console, warnings: Sequence[str] = ()) -> None:
        self._console = console
        self._warnings = warnings
        self._live: Live | None = None
        self._next_line = 0.0

    def say(self, text: str) -> None:
        """Prints a line, before anything is shown."""
        say(self._console, text)

    def start(
        self,
        plan: Plan,
        results: Results,
        follower: Follower | None,
        steps: Sequence[int],
        title: str = "",
    ) -> None:
        """Begins to show the training of ``plan``, whose ``results`` are kept up to date elsewhere."""
        self._title = title
        self._results = results
        self._follower = follower
        self._meter = Meter(plan, steps)
        for warning in self._warnings:
            say(self._console, f"warning: {warning}")
        self._warnings = ()
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console)
            self._live.start()
        else:
            say(self._console, self._line())

    def update(self, report: Report) -> None:
        self._meter.update(report)
        if self._live is None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            say(self._console, self._line())

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            say(self._console, self._line())

    def _line(self) -> str:
        meter = self._meter
        title = [self._title] if self._title else []
        if not meter.has_begun:
            return ", ".join([*title, "compiling the first programs"])
        parts = [
            *title,
            f"{meter.fraction:.0%}",
            f"{meter.steps:,} of {meter.total_steps:,} steps",
        ]
        if meter.shapes_ready < meter.shapes:
            parts.append(f"compiling for shape {meter.shapes_ready + 1} of {meter.shapes}")
        else:
            if meter.steps_per_second:
                parts.append(f"{meter.steps_per_second:,.0f} steps/s")
            parts.append(f"{_duration(meter.seconds_left)} left")
        best = self._results.ranking_so_far()[0]
        score = self._results.mean(best, self._results.column_so_far)
        if not math.isnan(score):
            parts.append(f"best {score:.1f} (config {best})")
        if self._follower is not None:
            parts.append(_tracker_state(self._follower))
        return ", ".join(parts)

    def _render(self) -> Group:
        bar = Table.grid(expand=True)
        bar.add_row(ProgressBar(total=1.0, completed=self._meter.fraction))
        results = self._results
        table = best_table(results, results.ranking_so_far(), results.column_so_far)
        return Group(bar, self._line(), table)


class PatientConsole(Console):
    """A console that falls silent where its reader has gone (``| head``): training goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(console: Console, text: str) -> None:
    """Prints a line as it is: no colours, no wrapping."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def best_table(results: Results, ranking: Sequence[int], score: str) -> Table:
    """The first configurations of ``ranking`` with their ``score`` and what they differ in."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    has_seeds = len({len(results.seeds(config)) for config in ranking}) > 1
    columns = ("rank", "config", score.removesuffix("_mean"), "train_return")
    for name in (*columns, "seeds") if has_seeds else columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("hyperparameters that vary", overflow="fold")
    names = varying(results.of_agent)
    for rank, config in enumerate(ranking[:_BEST_SHOWN], start=1):
        means = [results.mean(config, name) for name in (score, "train_return_mean")]
        first = results.seeds(config)[0]
        values = " ".join(f"{name}={course(first, name, format_value)}" for name in names)
        seeds = [str(len(results.seeds(config)))] if has_seeds else []
        shown = (f"{mean:.1f}" if math.isfinite(mean) else "–" for mean in means)
        table.add_row(str(rank), str(config), *shown, *seeds, values)
    return table


def finalists_table(finalists: Sequence[Finalist]) -> Table:
    """What the best configurations are worth on fresh seeds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "rank",
        "config",
        "searched",
        "fresh iqm",
        "95 %",
        "mean",
        "solved",
        "flattered by",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for rank, f in enumerate(finalists, start=1):
        solved = "" if f.solved is None else f"{f.solved:.0%}"
        is_known = math.isfinite(f.fresh_low)
        interval = f"{f.fresh_low:.1f} to {f.fresh_high:.1f}" if is_known else "–"
        numbers = (f"{value:.1f}" for value in (f.search_score, f.fresh_iqm))
        row = (*numbers, interval, f"{f.fresh_mean:.1f}", solved, f"{f.flattery:.1f}")
        table.add_row(str(rank), str(f.config), *row)
    return table


def format_value(value: object) -> str:
    """A hyperparameter for people: floats to four figures."""
    return f"{value:.4g}" if isinstance(value, float) else format_cell(value)


def _tracker_state(follower: Follower) -> str:
    if follower.trouble:
        return f"MLflow: {textwrap.shorten(follower.trouble, _TROUBLE_LENGTH, placeholder=' …')}"
    return f"MLflow {follower.seconds_behind():.0f} s behind"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
