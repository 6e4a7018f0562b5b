"""A search that is given device time, instead of a number of configurations.

Each generation gets its share of the time that is left, and is chosen by chance among more candidates
than there is room for: as many as fit, and none that alone would take much of it. Weights of 1 / cost
(EI-cool of Lee et al. 2020, https://arxiv.org/abs/2003.10870) were tried, and found less: what is very
cheap seldom holds (``benchmarks/README.md``).
"""

import dataclasses
from collections.abc import Collection, Hashable, Sequence

import numpy as np

from jaxrl.population.cost import COMPILE_SECONDS

OFFERING = ("random", "sobol", "tpe")
"""Samplers that can be asked for candidates of which most are not taken."""
_COMPILING = 0.25
"""Of the time of a generation, what compiling for it may take."""
_LONGEST = 0.375
"""Of that time, what one configuration may take: for a longer one the other devices would wait."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a search has taken so far, in seconds of all devices at work."""

    seconds: float = 0.0
    """On new configurations."""
    predicted: float = 0.0
    """For these, each trained to its end, before that was measured."""
    verifying: float = 0.0
    """On further seeds."""

    @property
    def pace(self) -> float:
        """Seconds measured for a second predicted: of this machine, and of early stopping."""
        return self.seconds / self.predicted if self.predicted and self.seconds else 1.0

    @property
    def total(self) -> float:
        return self.seconds + self.verifying


@dataclasses.dataclass(frozen=True)
class Allowance:
    """Device time for a search, to be spent in about ``generations`` equal parts."""

    seconds: float
    generations: int

    def room(self, generation: int, spent: Spent) -> float:
        """Seconds for a generation; 0 once what is left is less than half a part."""
        left = self.seconds - spent.total
        if left < self.seconds / self.generations / 2:
            return 0.0
        return left / max(self.generations - generation, 1)


def choose(
    costs: Sequence[float],
    shapes: Sequence[Hashable],
    known: Collection[Hashable],
    room: float,
    workers: int,
    rng: np.random.Generator,
    most: int,
) -> list[int]:
    """Which candidates to train, in their order: by chance as many as fit, and at least one.

    Args:
        costs: of each candidate, seconds on one worker.
        shapes: of each, what has to be compiled for it.
        known: shapes that have been compiled; others may take a share of the room.
        room: seconds on each of ``workers``; a configuration that alone takes a large part of them
            is left out.
        most: how many, whatever the room.
    """
    ready, left = set(known), room * workers
    chosen: list[int] = []
    most_shapes = len(ready) + max(int(left * _COMPILING / COMPILE_SECONDS), not ready)
    for candidate in rng.permutation(len(costs)).tolist():
        cost, shape = costs[candidate], shapes[candidate]
        is_open = shape in ready or len(ready) < most_shapes
        if cost <= min(left, _LONGEST * room) and is_open and len(chosen) < most:
            chosen.append(candidate)
            ready.add(shape)
            left -= cost
    return sorted(chosen) or [int(np.argmin(costs))]
