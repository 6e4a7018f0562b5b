"""What a report is made of, read from a run directory."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from jaxrl.errors import InputError
from jaxrl.tracking import journal


@dataclasses.dataclass
class Curves:
    """The evaluation returns of a sweep, kept up to date from its journal."""

    run_dir: pathlib.Path
    agents: int
    """Of the whole sweep."""
    configs: list[int]
    """[P]: the configuration of each agent."""
    seeds: list[int]
    """[P]."""
    steps_total: int
    """Environment steps of each agent."""
    returns: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    """By step, ``[P]``; NaN for agents that have not reached it."""
    ended: int = 0
    """Agents whose final evaluation is known."""
    _position: journal.Position = dataclasses.field(default_factory=journal.Position)

    @classmethod
    def of(cls, run_dir: pathlib.Path) -> "Curves":
        """Of the sweep in ``run_dir``, as far as it is.

        Raises:
            InputError: there is none.
        """
        try:
            sweep = json.loads((run_dir / "sweep.json").read_text("utf-8"))
            steps = int(sweep["spec"]["steps"])
            configs, seeds = list(sweep["configs"]), list(sweep["seeds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{run_dir} is no run directory ({type(error).__name__}: {error})."
            ) from None
        curves = cls(run_dir, len(configs), configs, seeds, steps)
        curves.update()
        return curves

    def update(self) -> None:
        """Reads what has been recorded since."""
        for record, position in journal.read(self.run_dir / "journal", self._position):
            self._position = position
            if record["kind"] == "evaluation":
                values = record["metrics"]["eval_return_mean"]
                row = self.returns.setdefault(record["step"], np.full(self.agents, np.nan))
                row[record["agents"]] = [np.nan if v is None else v for v in values]
            elif record["kind"] == "final":
                self.ended += len(record["agents"])

    def name(self, agent: int) -> str:
        """What people call an agent: its configuration, and its seed where that has several."""
        config = self.configs[agent]
        seed = f", seed {self.seeds[agent]}" if self.configs.count(config) > 1 else ""
        return f"config {config}{seed}"

    @property
    def fraction(self) -> float:
        """Of all environment steps that are evaluated and recorded."""
        if self.ended >= self.agents:
            return 1.0
        before, done = 0, 0.0
        for step in sorted(self.returns):
            done += (step - before) * np.isfinite(self.returns[step]).sum()
            before = step
        return float(done) / (self.agents * self.steps_total)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps ``[T]`` and returns ``[T, P]``."""
        steps = np.array(sorted(self.returns), int)
        rows: list[Any] = [self.returns[step] for step in steps]
        return steps, np.array(rows).reshape(len(steps), self.agents)
