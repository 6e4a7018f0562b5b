"""What a report is made of, read from a run directory."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from jaxrl.errors import InputError
from jaxrl.search.generation import FINALISTS
from jaxrl.tracking import journal


@dataclasses.dataclass
class Curves:
    """The evaluation returns of a sweep, kept up to date from its journal."""

    run_dir: pathlib.Path
    agents: int
    """Of the whole search, but for finalists."""
    configs: list[int]
    """[P]: the configuration of each agent."""
    seeds: list[int]
    """[P]."""
    steps_total: int
    """Environment steps of each agent."""
    returns: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    """By step, ``[P]``; NaN for agents that have not reached it."""
    ended: int = 0
    """Agents whose final evaluation is known, or which were stopped before."""
    _spared: int = 0
    """Steps that those who were stopped did not take."""
    _is_over: bool = False
    """Whether nothing is left to train, though a target may have ended the search early."""
    _is_final: bool = False
    """Whether finalists are trained."""
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
            agents = len(seeds)
            if sweep["parameters"] is not None:  # a table is one generation
                agents = sweep["spec"]["configs"] * sweep["spec"]["seeds"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{run_dir} is no run directory ({type(error).__name__}: {error})."
            ) from None
        curves = cls(run_dir, agents, configs, seeds, steps)
        curves.update()
        return curves

    def update(self) -> None:
        """Reads what has been recorded since."""
        for record, position in journal.read(self.run_dir / "journal", self._position):
            self._position = position
            if record["kind"] == "generation":
                self._is_final = record["stage"] == FINALISTS
                if not self._is_final:
                    self.configs += record["configs"]
                    self.seeds += record["seeds"]
                    self._make_room()
            elif record["kind"] == "end":
                self._is_over = record["status"] == "finished"
            elif record["kind"] == "rung":
                self.ended += len(record["agents"])
                self._spared += len(record["agents"]) * (self.steps_total - record["step"])
            elif record["kind"] == "evaluation" and not self._is_final:
                values = record["metrics"]["eval_return_mean"]
                row = self.returns.setdefault(record["step"], np.full(self.agents, np.nan))
                row[record["agents"]] = [np.nan if v is None else v for v in values]
            elif record["kind"] == "final" and not self._is_final:
                self.ended += len(record["agents"])

    def _make_room(self) -> None:
        """For agents that were not foreseen: of verifications, or as many as there was time for."""
        if (more := len(self.configs) - self.agents) > 0:
            self.agents += more
            self.returns = {
                step: np.append(row, np.full(more, np.nan)) for step, row in self.returns.items()
            }

    def name(self, agent: int) -> str:
        """What people call an agent: its configuration, and its seed where that has several."""
        config = self.configs[agent]
        seed = f", seed {self.seeds[agent]}" if self.configs.count(config) > 1 else ""
        return f"config {config}{seed}"

    @property
    def fraction(self) -> float:
        """Of all environment steps that are evaluated and recorded."""
        if self._is_over or self.ended >= self.agents:
            return 1.0
        before, done = 0, 0.0
        for step in sorted(self.returns):
            done += (step - before) * np.isfinite(self.returns[step]).sum()
            before = step
        return float(done) / (self.agents * self.steps_total - self._spared)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps ``[T]`` and returns ``[T, P]``."""
        steps = np.array(sorted(self.returns), int)
        rows: list[Any] = [self.returns[step] for step in steps]
        return steps, np.array(rows).reshape(len(steps), self.agents)
