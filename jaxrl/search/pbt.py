"""Population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).

At each rung the worst fifth of a generation goes on as copies of agents of the best fifth, drawn by
chance (truncation selection), with hyperparameters a little changed: the ones that the space varies and
that can change while an agent trains.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.errors import InputError
from jaxrl.search.parameters import Choice, Interval, Varying, default
from jaxrl.search.pruners import ranked
from jaxrl.search.schedule import CHANGEABLE
from jaxrl.search.space import Space

FEWEST = 5
"""Agents of which one is replaced."""
_RESAMPLED = 0.25
_SHARE = 0.2


class Evolution:
    """Says who goes on as whose copy in one generation.

    Args:
        rungs: steps at which everybody waits for that.
        seed: of the search and the generation.

    Raises:
        InputError: the space varies nothing that could change.
    """

    def __init__(self, space: Space, rungs: Sequence[int], seed: Sequence[int]) -> None:
        self.rungs = tuple(rungs)
        self._space, self._seed = space, seed
        if not set(space.varying) & set(CHANGEABLE):
            raise InputError(
                "--pbt changes hyperparameters while agents train, and this space varies none that "
                f"can: let it vary one of {', '.join(CHANGEABLE)}, or leave --pbt out."
            )

    def copies(
        self, rung: int, scores: Mapping[int, float], values: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, tuple[int, dict[str, Any]]]:
        """For each agent that goes on as a copy its source, and the hyperparameters of the copy.

        Args:
            scores: by agent; NaN for one that diverged.
            values: by agent its hyperparameters.
        """
        order = ranked(scores)
        sound = sum(not np.isnan(score) for score in scores.values())
        share = min(len(order) // FEWEST, sound)
        best, replaced = order[:share], order[max(share, min(sound, len(order) - share)) :]
        rng = np.random.default_rng([*self._seed, rung])
        found = {}
        for agent in replaced if best else ():
            source = best[int(rng.integers(len(best)))]
            found[agent] = source, self._explore(values[source], rng)
        return found

    def _explore(self, values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        def draw(name: str, parameter: Varying) -> Any:
            if name not in CHANGEABLE:
                return values.get(name)
            if rng.random() < _RESAMPLED or not _is_of(parameter, values[name]):
                return parameter.at(rng.random())
            return _perturbed(parameter, values[name], rng)

        explored = self._space.build(draw)
        changed = {n: default(n) for n in self._space.parameters if n not in explored} | explored
        return {n: changed.get(n, v) if n in CHANGEABLE else v for n, v in values.items()}


def _is_of(parameter: Varying, value: Any) -> bool:
    """Whether a value is one that a parameter takes; else it did not vary where it comes from."""
    if isinstance(parameter, Choice):
        return value in parameter.values
    assert isinstance(parameter, Interval)
    return parameter.low <= value <= parameter.high


def _perturbed(parameter: Varying, value: Any, rng: np.random.Generator) -> Any:
    """A number times 0.8 or 1.2, a whole one changed by one at least, in its interval, or where that
    has steps by one of these at least; of choices a neighbour."""
    which = int(rng.integers(2))
    if isinstance(parameter, Choice):
        place = parameter.values.index(value) + (-1, 1)[which]
        return parameter.values[min(max(place, 0), len(parameter.values) - 1)]
    assert isinstance(parameter, Interval)
    least = parameter.step or (1 if parameter.integer else 0)
    moved = value + (-1, 1)[which] * max(_SHARE * value, least)
    moved = min(max(moved, parameter.low), parameter.high)
    moved = round(moved) if parameter.integer else moved
    return moved if parameter.step is None else parameter.at(parameter.coordinate(moved))
