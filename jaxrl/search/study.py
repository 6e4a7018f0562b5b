"""Proposes the configurations of a search, a generation at a time, from how earlier ones did."""

import importlib.util
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.errors import InputError
from jaxrl.search.grid import combinations
from jaxrl.search.models import MODELS, Suggest, Told
from jaxrl.search.parameters import Varying
from jaxrl.search.samplers import SAMPLERS
from jaxrl.search.space import Space

SAMPLER_NAMES: tuple[str, ...] = (*SAMPLERS, "grid", *MODELS)
"""Every sampler; those that learn from scores come last."""

_NEEDS = {"cmaes": ("cmaes", "search"), "gp": ("torch", "gp")}
"""The package that a sampler stands on, and the extra that brings it."""
_MOST_REDRAWS = 20
MOST_BY_GP = 64
"""Configurations of one generation that ``gp`` may be asked for: each takes it a third of a second,
and longer the more there are."""
_DRAWN, _ASKED = 1024, 64  # candidates: what chance gives at once, and a model in a second


class Proposer:
    """Proposes ``total`` configurations of ``space``, a generation at a time.

    ``random`` and ``sobol`` place points; ``grid`` takes every combination once, in an order that
    the seed decides; ``tpe``, ``cmaes`` and ``gp`` go where earlier configurations scored well. To
    these a hyperparameter ``seed`` is noise, and drawn at random.

    Raises:
        InputError: the sampler is unknown, needs a package that is not here, or cannot sample this
            space.
    """

    def __init__(self, space: Space, sampler: str, seed: int, total: int):
        if sampler not in SAMPLER_NAMES:
            raise InputError.unknown("sampler", sampler, SAMPLER_NAMES)
        package, extra = _NEEDS.get(sampler, ("numpy", ""))
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"the sampler {sampler} needs the package {package}, which is not installed: "
                f"pip install 'jaxrl[{extra}]', or use another --sampler."
            )
        self.space, self.sampler, self.seed = space, sampler, seed
        self._grid = combinations(space, seed, total) if sampler == "grid" else []

    def candidates(self, generation: int, told: Sequence[Told]) -> list[dict[str, Any]]:
        """More configurations than a generation is to have, as :meth:`ask` gives them."""
        is_slow = self.sampler in MODELS and told
        return self._proposals(generation, _ASKED if is_slow else _DRAWN, generation * _DRAWN, told)

    def ask(self, generation: int, count: int, told: Sequence[Told]) -> list[dict[str, Any]]:
        """The next ``count`` configurations: the values of each, by name.

        ``told`` are all earlier ones, in the order in which they were proposed. The answer depends
        on nothing else that is not the proposer's, so a search that was interrupted goes on to the
        same proposals. Generations are of one size, but for the last.
        """
        return self._proposals(generation, count, len(told), told)

    def _proposals(
        self, generation: int, count: int, before: int, told: Sequence[Told]
    ) -> list[dict[str, Any]]:
        """The next ``count``, after ``before`` were drawn."""
        rng = np.random.default_rng([self.seed, generation])
        if self.sampler in SAMPLERS:
            points = SAMPLERS[self.sampler](self.seed, before + count, len(self.space.varying))
            return [self.space.at(point) for point in points[before:]]
        if self.sampler == "grid":
            rows = self._grid[before : before + count]
            return [self._build(lambda name, _, row=row: row[name], rng) for row in rows]  # type: ignore[misc]
        suggestions = _by_chance(rng)
        if told:
            model, size = MODELS[self.sampler], len(told) // max(generation, 1)
            suggestions = model(self.space, int(rng.integers(2**31)), told, size)
        return self._new(itertools.islice(suggestions, count), rng, told)

    def _new(
        self, suggestions: Iterable[Suggest], rng: np.random.Generator, told: Sequence[Told]
    ) -> list[dict[str, Any]]:
        """What is suggested, or by chance something else where it was proposed before."""
        # With the same seed, if any, the same configuration would give the same numbers again.
        seen = {self._key(trial.values) for trial in told}
        proposals = []
        for suggest in suggestions:
            values = self._build(suggest, rng)
            for again in itertools.islice(_by_chance(rng), _MOST_REDRAWS):
                if self._key(values) not in seen:
                    break
                values = self._build(again, rng)
            seen.add(self._key(values))
            proposals.append(values)
        return proposals

    def _build(self, suggest: Suggest, rng: np.random.Generator) -> dict[str, Any]:
        def draw(name: str, parameter: Varying) -> Any:
            return parameter.at(rng.random() if name == "seed" else suggest(name, parameter))

        return self.space.build(draw)

    def _key(self, values: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
        return tuple(self.space.coordinates(values).items())


def _by_chance(rng: np.random.Generator) -> Iterator[Suggest]:
    while True:
        yield lambda name, parameter: rng.random()
