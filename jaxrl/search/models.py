"""Samplers that learn: where in the unit cube of a space earlier scores say to look.

Each yields, for one configuration after another, a function that gives the coordinate of whatever
varies in it. All that a sampler knows is rebuilt from what it is told; a hyperparameter ``seed`` is
none of its business.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl.search.parameters import Choice, Varying
from jaxrl.search.space import Space

if TYPE_CHECKING:  # imported where it is used: it takes a while
    import optuna

Suggest = Callable[[str, Varying], float]
"""The coordinate, in [0, 1], of a hyperparameter of the configuration that is being proposed."""

_TPE_MODELS, _GP_MODELS = 500, 100
"""Of how many configurations a model is made: a proposal then takes some 15 ms, and 0.3 s."""
_SMALLEST_POPULATION = 4
_FIRST_SIGMA = 0.3  # of axes of length 1: what the first generation, which is by chance, has


@dataclasses.dataclass(frozen=True)
class Told:
    """How a configuration did."""

    values: Mapping[str, Any]
    """As it was proposed."""
    score: float | None
    """Higher is better; None or NaN where it failed or diverged."""
    pruned_at: int | None = None
    """The environment step at which it was stopped early, if it was."""
    intermediate: Mapping[int, float] = dataclasses.field(default_factory=dict)
    """Scores along the way, by environment step."""

    @property
    def state(self) -> str:
        """``COMPLETE``, ``PRUNED`` or ``FAIL``."""
        if self.pruned_at is not None:
            return "PRUNED"
        return "COMPLETE" if self.score is not None and math.isfinite(self.score) else "FAIL"

    @property
    def curve(self) -> dict[int, float]:
        """The intermediate scores that are numbers, by step."""
        return {k: float(v) for k, v in sorted(self.intermediate.items()) if math.isfinite(v)}

    @property
    def merit(self) -> tuple[float, ...]:
        """Sorts: what failed, what was pruned (by how far it came, then how well it did), the rest by
        score."""
        if self.state == "FAIL":
            return (0,)
        if self.state == "PRUNED":
            return 1, *max(self.curve.items(), default=(-1, 0.0))
        return 2, float(self.score or 0)


def tpe(space: Space, seed: int, told: Sequence[Told], size: int) -> Iterator[Suggest]:
    """Tree-structured Parzen estimators (Bergstra et al. 2011) of all hyperparameters together, as
    Optuna has them. What is being proposed counts as bad, so that a generation spreads."""
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that some versions call experimental
        sampler = TPESampler(
            seed=seed, multivariate=True, group=space.conditional, constant_liar=True
        )
    return _from_optuna(sampler, space, _shortlist(told, _TPE_MODELS), knows_pruned=True)


def gp(space: Space, seed: int, told: Sequence[Told], size: int) -> Iterator[Suggest]:
    """A Gaussian process and its expected improvement, as Optuna has them. What varies only under a
    condition is left to chance."""
    import torch
    from optuna.samplers import GPSampler

    sampler = GPSampler(seed=seed, warn_independent_sampling=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of so small operations more wait for each other, and for whom else
    try:
        yield from _from_optuna(sampler, space, _shortlist(told, _GP_MODELS), knows_pruned=False)
    finally:
        torch.set_num_threads(threads)


def cmaes(space: Space, seed: int, told: Sequence[Told], size: int) -> Iterator[Suggest]:
    """CMA-ES with margin (Hamano et al. 2022), choices as whole numbers in the order of their list.
    A generation of the search, ``size`` configurations, is one of the strategy."""
    from cmaes import CMAwM

    names = [n for n in space.varying if n != "seed" and space.parameters[n].levels != 1]
    spare = [0.0] * (2 - len(names))  # it wants two axes
    steps = np.array([1 / (space.parameters[n].levels or math.inf) for n in names] + spare)
    population = max(size, _SMALLEST_POPULATION)
    optimizer = CMAwM(
        mean=np.full(len(steps), 0.5),
        sigma=_FIRST_SIGMA,
        bounds=np.stack([steps / 2, 1 - steps / 2], axis=1),
        steps=steps,
        seed=seed,
        population_size=population,
    )
    for start in range(0, len(told) - population + 1, population):
        generation = sorted(told[start : start + population], key=lambda t: t.merit, reverse=True)
        mean = dict(zip(names, optimizer.mean, strict=False))  # says nothing of what did not vary
        points = [{**mean, **space.coordinates(trial.values)} for trial in generation]
        rows = [np.array([p[n] for n in names] + [0.5] * len(spare)) for p in points]
        optimizer.tell([(row, float(rank)) for rank, row in enumerate(rows)])
    while True:
        point = dict(zip(names, optimizer.ask()[0], strict=False))
        yield lambda name, _, point=point: float(point.get(name, 0.5))  # type: ignore[misc]


MODELS: dict[str, Callable[[Space, int, Sequence[Told], int], Iterator[Suggest]]] = {
    "tpe": tpe,
    "cmaes": cmaes,
    "gp": gp,
}


def _shortlist(told: Sequence[Told], most: int) -> list[Told]:
    """At most ``most`` of them, in their order: half the best, half the latest of the others."""
    best_first = sorted(range(len(told)), key=lambda i: told[i].merit, reverse=True)
    best, others = best_first[: most // 2], best_first[most // 2 :]
    return [told[i] for i in sorted((*best, *sorted(others)[-(most - most // 2) :]))]


def _from_optuna(
    sampler: "optuna.samplers.BaseSampler",
    space: Space,
    told: Sequence[Told],
    knows_pruned: bool,
) -> Iterator[Suggest]:
    """What ``sampler`` suggests in a study of what was told. What failed counts as the worst that
    was seen, and to a sampler that does not know pruned trials, these as what they had reached."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    worst = min((float(t.score or 0) for t in told if t.state == "COMPLETE"), default=0.0)
    distributions = {name: _distribution(space.parameters[name]) for name in space.varying}
    for trial in told:
        where = {n: u for n, u in space.coordinates(trial.values).items() if n != "seed"}
        result: dict[str, Any] = {"value": float(trial.score or 0)}
        if trial.state == "PRUNED" and knows_pruned:
            pruned = optuna.trial.TrialState.PRUNED
            result = {"state": pruned, "intermediate_values": trial.curve}
        elif trial.state == "PRUNED":
            result = {"value": list(trial.curve.values() or [worst])[-1]}
        elif trial.state != "COMPLETE":
            result = {"value": worst}
        study.add_trial(
            optuna.trial.create_trial(
                params={n: _internal(space.parameters[n], u) for n, u in where.items()},
                distributions={name: distributions[name] for name in where},
                **result,
            )
        )
    while True:
        yield functools.partial(_suggest, study.ask())


def _distribution(parameter: Varying) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.levels is None:
        return FloatDistribution(0, 1)
    if isinstance(parameter, Choice):
        return CategoricalDistribution(range(parameter.levels))
    return IntDistribution(0, parameter.levels - 1)


def _internal(parameter: Varying, u: float) -> float | int:
    return u if parameter.levels is None else int(u * parameter.levels)


def _suggest(trial: "optuna.Trial", name: str, parameter: Varying) -> float:
    if parameter.levels is None:
        return trial.suggest_float(name, 0, 1)
    if isinstance(parameter, Choice):
        level = trial.suggest_categorical(name, range(parameter.levels))
    else:
        level = trial.suggest_int(name, 0, parameter.levels - 1)
    return (level + 0.5) / parameter.levels
