"""How a sweep looks while it runs: a live view in a terminal, plain lines elsewhere."""

import math
import time
from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from jaxrl.population.plan import Plan
from jaxrl.population.train import Report
from jaxrl.search.results import Results
from jaxrl.search.table import format_cell
from jaxrl.tracking.follower import Follower

_BEST_SHOWN = 5
_RATE_SECONDS = 20.0
_LINE_SECONDS = 10.0
_COLUMNS = ("learning_rate", "gamma", "batch_size", "train_freq", "gradient_steps", "hidden_sizes")


class Meter:
    """Progress, speed and time left, from the reports alone."""

    def __init__(self, plan: Plan) -> None:
        self._work_per_step = plan.step_seconds()
        self._total_work = float(sum(self._work_per_step)) * plan.budget.steps
        self.total_steps = len(plan.agents) * plan.budget.steps
        self.steps = 0
        self._work = 0.0
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int, float]] = deque([(self._began, 0, 0.0)])

    def update(self, report: Report) -> None:
        if not self.steps:  # compilation is no part of the speed
            self._recent = deque([(time.monotonic() - report.seconds, 0, 0.0)])
        self.steps += report.new_steps * len(report.agents)
        self._work += report.new_steps * float(sum(self._work_per_step[i] for i in report.agents))
        now = time.monotonic()
        self._recent.append((now, self.steps, self._work))
        while now - self._recent[0][0] > _RATE_SECONDS and len(self._recent) > 2:
            self._recent.popleft()

    @property
    def fraction(self) -> float:
        """Of the predicted work, which is fairer than of the steps: cohorts differ in cost."""
        return min(self._work / self._total_work, 1.0)

    @property
    def steps_per_second(self) -> float:
        return self._rate(1)

    @property
    def seconds_left(self) -> float:
        """NaN before anything was measured."""
        rate = self._rate(2)
        return (self._total_work - self._work) / rate if rate else math.nan

    def _rate(self, column: int) -> float:
        first, last = self._recent[0], self._recent[-1]
        elapsed = max(time.monotonic() - first[0], 1e-9)
        return (last[column] - first[column]) / elapsed if self.steps else 0.0


class ConsoleDisplay:
    """Shows a sweep on ``console``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._next_line = 0.0

    def start(self, plan: Plan, results: Results, follower: Follower | None) -> None:
        self._results = results
        self._follower = follower
        self._meter = Meter(plan)
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4
            )
            self._live.start()
        else:
            self._console.print("compiling", highlight=False)

    def update(self, report: Report) -> None:
        self._meter.update(report)
        if self._live is None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            self._print(self._line())

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            self._print(self._line())

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        meter = self._meter
        if not meter.steps:
            return "compiling"
        left = meter.seconds_left
        parts = [
            f"{meter.fraction:4.0%}",
            f"{meter.steps:,} of {meter.total_steps:,} steps",
            f"{meter.steps_per_second:,.0f} steps/s",
            f"{_duration(left)} left",
        ]
        best = self._results.latest_ranking()[0]
        parts.append(f"best {self._results.mean(best, 'latest_return_mean'):.1f} (config {best})")
        return ", ".join([*parts, *self._tracker()])

    def _tracker(self) -> list[str]:
        if self._follower is None:
            return []
        if self._follower.trouble:
            return [f"MLflow: {self._follower.trouble}"]
        return [f"MLflow {self._follower.seconds_behind():.0f} s behind"]

    def _render(self) -> Group:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %"),
            expand=True,
        )
        meter = self._meter
        progress.add_task(
            "training" if meter.steps else "compiling", completed=meter.fraction, total=1.0
        )
        return Group(progress, self._line(), self._best_table())

    def _best_table(self) -> Table:
        table = Table(title="best so far, by the latest evaluation", title_justify="left")
        for name in ("config", "return", "train", "step", *_COLUMNS):
            table.add_column(name, justify="right", no_wrap=True)
        for config in self._results.latest_ranking()[:_BEST_SHOWN]:
            result = self._results.seeds(config)[0]
            values = [format_value(result.row[name]) for name in _COLUMNS]
            scores = [self._results.mean(config, n) for n in ("latest_return_mean", "train_return_mean")]
            cells = [str(config), *(f"{score:.1f}" for score in scores), f"{result.env_steps:,}"]
            table.add_row(*cells, *values)
        return table


def format_value(value: object) -> str:
    """A hyperparameter for people: floats to four figures."""
    return f"{value:.4g}" if isinstance(value, float) else format_cell(value)


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
