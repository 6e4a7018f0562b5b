"""The workloads that jaxrl is measured on, and the arithmetic they ask for."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl.dqn.environment import Environment, make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.plan import Agent, Budget
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import load_space


@dataclasses.dataclass(frozen=True)
class Workload:
    """A population of any size, trained for a fixed number of steps."""

    env_id: str
    steps: int
    configurations: Callable[[int], list[Configuration]]
    eval_every: int = 2_500

    @property
    def env(self) -> Environment:
        return make(self.env_id)

    @property
    def budget(self) -> Budget:
        """Ten episodes every ``eval_every`` steps, and ten for each final policy."""
        return Budget(self.steps, self.eval_every, eval_episodes=10, final_episodes=10)

    def agents(self, population: int) -> list[Agent]:
        """The first ``population`` agents; agent k has seed k."""
        return [Agent(c, seed) for seed, c in enumerate(self.configurations(population))]


W1_VALUES = {
    "batch_size": 128,
    "train_freq": 10,
    "gradient_steps": 1,
    "target_update_interval": 500,
    "learning_starts": 10_000,
    "buffer_size": 10_000,
    "epsilon_decay_steps": 25_000,
    "hidden_sizes": [64, 64],
}
"""One small network, and what a comparison with rejax, which varies no more, can hold equal."""

W1_STEPS = 50_000
LONG_STEPS = 1_000_000


def _w1(population: int, **changes: Any) -> list[Configuration]:
    return [
        Configuration.create({**W1_VALUES, "learning_rate": float(rate), **changes}, W1_STEPS)
        for rate in np.logspace(-4, -2, population)
    ]


W2_STEPS = 20_000


def _w2(population: int) -> list[Configuration]:
    """The hands-on-rl course's space with its larger network."""
    space = load_space("hands-on-rl")
    points = SAMPLERS["random"](0, population, len(space.varying))
    rows = [space.at(point) | {"hidden_sizes": [256, 256]} for point in points]
    for row in rows:
        row.pop("seed", None)
    return [Configuration.create(row, W2_STEPS) for row in rows]


W3_VALUES = {
    "learning_rate": 5e-4,
    "gamma": 1.0,
    "batch_size": 100,
    "train_freq": 1,
    "gradient_steps": 1,
    "target_update_interval": 1_000,
    "learning_starts": 20_000,
    "buffer_size": 100_000,
    "epsilon_decay_steps": 500_000,
    "hidden_sizes": [128, 128],
}
"""rejax's published benchmark of MinAtar-Breakout, with a multilayer perceptron for its convolution."""

W3_STEPS = 40_000
"""Of the benchmark's 1,000,000; the second half trains."""


def _w3(population: int) -> list[Configuration]:
    return [Configuration.create(W3_VALUES, W3_STEPS)] * population


WORKLOADS = {
    "w1": Workload("CartPole-v1", W1_STEPS, _w1),
    "w2": Workload("CartPole-v1", W2_STEPS, _w2),
    "w3": Workload("Breakout-MinAtar", W3_STEPS, _w3, eval_every=W3_STEPS // 2),
    "w1-long": Workload("CartPole-v1", LONG_STEPS, _w1),
    "w1-long-large-replay": Workload(
        "CartPole-v1", LONG_STEPS, functools.partial(_w1, buffer_size=LONG_STEPS)
    ),
}
"""``benchmarks/README.md`` describes them; the long ones are W1 for more steps, keeping few or all."""
