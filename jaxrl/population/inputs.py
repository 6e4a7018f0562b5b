"""What a tile of a plan is given: seeds, traced hyperparameters and cadence."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from jaxrl.dqn.environment import Environment, observation_statistics
from jaxrl.dqn.hyperparameters import Cadence, Hyperparameters
from jaxrl.population.layout import Layout
from jaxrl.population.plan import Plan
from jaxrl.population.tile import HYPERPARAMETER_DTYPES


def tile_inputs(
    layout: Layout, tile: Sequence[int], statistics: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Hyperparameters, Cadence]:
    """Seeds and traced hyperparameters of a tile, ``[P, …]``, filled up with its first agent, and its
    cadence: one of all, or where the hardware mixes them, ``[P]``, one of each.

    Args:
        statistics: mean and standard deviation ``[O]`` of observations, for those who normalise.
    """
    plan = layout.plan
    width = plan.widths[layout.configuration(tile[0]).shape]
    filled = [*tile, *[tile[0]] * (width - len(tile))]
    configurations = [layout.configuration(index) for index in filled]

    def column(name: str) -> np.ndarray:
        dtype = HYPERPARAMETER_DTYPES.get(name, np.float32)
        return np.array([getattr(c, name) for c in configurations], dtype)

    normalised = np.array([c.normalize_observations for c in configurations])[:, None]
    mean, std = statistics
    traced = [name for name in Hyperparameters._fields if not name.startswith("observation_")]
    hyper = Hyperparameters(
        **{name: column(name) for name in traced},  # type: ignore[arg-type]
        observation_mean=np.where(normalised, mean, 0).astype(np.float32),  # type: ignore[arg-type]
        observation_std=np.where(normalised, std, 1).astype(np.float32),  # type: ignore[arg-type]
    )
    own = slice(None) if plan.hardware.mixes_cadences else 0
    cadence = Cadence(*(column(name)[own] for name in Cadence._fields))  # type: ignore[arg-type]
    seeds = np.array([plan.agents[index].seed for index in filled], np.uint32)
    return seeds, hyper, cadence


def normalisation(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Observation statistics, computed only where an agent normalises."""
    size = plan.env.observation_size
    if not any(agent.configuration.normalize_observations for agent in plan.agents):
        return np.zeros(size), np.ones(size)
    return _statistics(plan.env)


@functools.cache
def _statistics(env: Environment) -> tuple[np.ndarray, np.ndarray]:
    mean, std = jax.jit(lambda: observation_statistics(env))()
    return np.asarray(mean), np.asarray(std)
