"""What the host learns from a training, chunk by chunk."""

import dataclasses
from typing import Any

import numpy as np

from jaxrl.population.layout import Layout, Verdict
from jaxrl.population.snapshot import Snapshot
from jaxrl.population.tile import Evaluation


@dataclasses.dataclass(frozen=True)
class Rung:
    """That some agents have stopped, or gone on as copies, and the others go on."""

    verdict: Verdict
    layout: Layout
    """From now on."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the host learns from one chunk of one tile of n agents."""

    tile: int
    """Its number, see :class:`jaxrl.population.layout.TilePlace`."""
    agents: np.ndarray
    """[n], indices into the plan's agents."""
    step: int
    """Environment steps that each of them has taken."""
    new_steps: int
    """How many of those in this chunk."""
    seconds: float
    """Time on the device."""
    shapes_ready: int
    """Of the plan's shapes, how many have been compiled for training."""
    evaluation: dict[str, np.ndarray] | None = None
    """At an evaluation step, arrays ``[n]``: ``eval_return_mean``, ``eval_return_std``,
    ``train_return_mean``, ``loss``, ``q_mean``, ``grad_norm``, ``epsilon``, ``updates``,
    ``diverged``. NaN is what is not known yet."""
    final: dict[str, np.ndarray] | None = None
    """After the last step, arrays ``[n]``: ``last_mean``, ``last_std``, ``best_mean``, ``best_std``
    of fresh episodes, ``diverged``."""
    params: dict[str, Any] | None = None
    """With ``final``, on the host: parameter trees ``last`` and ``best``, each leaf ``[n, …]``, and
    ``normalisation``, mean and standard deviation ``[n, O]`` of observations."""
    snapshot: Snapshot | None = None
    """The tile after the chunk, where one was asked for."""
    rung: Rung | None = None
    """Of no tile: that all of them have passed the rung at ``step``."""


def evaluation_values(values: Evaluation) -> dict[str, np.ndarray]:
    """The fields of ``Report.evaluation``; means in double precision, so that they read well."""
    fields = values._asdict()
    returns = fields.pop("eval_returns")
    total, episodes = fields.pop("train_return_sum"), fields.pop("train_episodes")
    train_mean = np.where(episodes > 0, total.astype(float) / np.maximum(episodes, 1), np.nan)
    return {**moments("eval_return", returns), "train_return_mean": train_mean, **fields}


def moments(name: str, returns: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard deviation of returns ``[n, E]`` over episodes."""
    returns = returns.astype(float)
    return {f"{name}_mean": returns.mean(axis=1), f"{name}_std": returns.std(axis=1)}
