"""A sweep as its run directory tells it, and reads on while it runs."""

import pathlib
from typing import Any

import numpy as np

from jaxrl.history import History
from jaxrl.saved import SavedSweep
from jaxrl.tracking import journal

_ALMOST = 0.99


class SoFar:
    """The sweep in ``run_dir``, as far as it is.

    Attributes:
        saved: what it was told.
        history: what has come of it.
        work: times (milliseconds since 1970) and the environment steps that were recorded by then.

    Raises:
        InputError: there is none.
    """

    def __init__(self, run_dir: pathlib.Path) -> None:
        self.run_dir = run_dir
        self.saved = SavedSweep.read(run_dir)
        self.history = History(self.saved.spec, self.saved.generation)
        self.work: list[tuple[int, int]] = []
        self.status: str | None = None
        """``finished``, ``killed`` or ``failed``, where it has ended."""
        self.importances: dict[str, dict[str, float]] | None = None
        """Of the hyperparameters, where the sweep has said so at its end."""
        self._began = 0
        self._before = 0
        """Milliseconds that earlier processes took."""
        self._position = journal.Position()
        self.update()

    def update(self) -> None:
        """Reads what has been recorded since."""
        for record, position in journal.read(self.run_dir / "journal", self._position):
            self._position = position
            time = record["time"]
            self.history.take(record)
            if record["kind"] == "begin":
                self._before, self._began, self.status = self.milliseconds, time, None
            elif record["kind"] == "end":
                self.status = record["status"]
            elif record["kind"] == "importances":
                self.importances = record["shares"]
            self.work.append((time, self.history.env_steps))

    @property
    def milliseconds(self) -> int:
        """That it has been under way."""
        return self._before + (self.work[-1][0] - self._began if self.work else 0)

    @property
    def fraction(self) -> float:
        """Of the whole that is done: of its environment steps, or of the time that it was given."""
        if self.status == "finished":
            return 1.0
        spec = self.saved.spec
        if spec.budget_seconds is not None:
            return min(self.milliseconds / 1000 / spec.budget_seconds, _ALMOST)
        results = self.history.results.of_agent
        agents = spec.configs * spec.seeds if self.saved.space is not None else len(results)
        done = sum(spec.steps if r.has_ended else r.env_steps for r in results)
        return min(done / (max(agents, len(results)) * spec.steps), 1.0)

    def name(self, agent: int) -> str:
        """What people call an agent: its configuration, and its seed where that has several."""
        result = self.history.results.of_agent[agent]
        several = len(self.history.results.seeds(result.config)) > 1
        return f"config {result.config}" + (f", seed {result.agent.seed}" if several else "")

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps ``[T]`` and evaluation returns ``[T, P]`` of the search's agents; NaN where one has not
        been evaluated."""
        results = self.history.results.of_agent
        steps = sorted({step for result in results for step in result.evaluations})
        rows: list[Any] = [[r.evaluations.get(step, np.nan) for r in results] for step in steps]
        return np.array(steps, int), np.array(rows, float).reshape(len(steps), len(results))
