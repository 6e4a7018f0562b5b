"""Which hyperparameters mattered: the share of the spread of a result that each accounts for (fANOVA,
Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html, as Optuna computes it)."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.dqn.hyperparameters import NAMES
from jaxrl.search.results import Results
from jaxrl.search.table import format_cell

FEWEST = 8
"""Configurations below which nothing can be said."""
_MOST = 1000
"""Configurations that are looked at: with so many it takes a few seconds."""


def shares(rows: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, float]:
    """Of each hyperparameter that varies its share, the largest first; they sum to 1. Nothing where
    there are too few rows, or all have one score.

    Args:
        rows: hyperparameters by name; whatever else is in them is passed over.
        scores: of each row, finite.
    """
    if len(rows) > _MOST:
        chosen = np.random.default_rng(0).choice(len(rows), _MOST, replace=False)
        rows, scores = [rows[i] for i in chosen], [scores[i] for i in chosen]
    values = {name: [row[name] for row in rows] for name in NAMES}
    varying = {n: column for n, column in values.items() if len(set(map(format_cell, column))) > 1}
    if len(rows) < FEWEST or not varying or min(scores) == max(scores):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of progress bars in a notebook, and of what is experimental
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize")
        spaces = {name: _distribution(column) for name, column in varying.items()}
        for place, score in enumerate(scores):
            params = {n: _value(spaces[n], column[place]) for n, column in varying.items()}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=spaces, value=score)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def of_results(
    results: Results, eval_steps: Sequence[int], threshold: float | None
) -> dict[str, dict[str, float]]:
    """The shares for ``score``, of the configurations that have one, and for ``steps_to_solve``, of
    all, where enough of them solved it; without what nothing can be said of.

    Args:
        threshold: the mean return from which on the environment is solved, if there is one.
    """
    rows = {r.config: r.row for r in results.of_agent}
    if any(row["schedule"] for row in rows.values()):
        return {}  # hyperparameters changed on the way
    scored = [config for config in rows if not math.isnan(results.sound_average(config))]
    found = {"score": shares([rows[c] for c in scored], [results.sound_average(c) for c in scored])}
    if threshold is not None:
        steps = [results.steps_to(threshold, config, eval_steps) for config in rows]
        if sum(each < max(steps) for each in steps) >= FEWEST:
            found["steps_to_solve"] = shares([*rows.values()], steps)
    return {name: each for name, each in found.items() if each}


def _distribution(column: Sequence[Any]):  # type: ignore[no-untyped-def]  # Optuna's base class
    """What Optuna calls the values of a column: numbers an interval, anything else a choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in column):
        numbers = [float(v) for v in column]
        if all(np.isfinite(numbers)):
            low, high = min(numbers), max(numbers)
            return FloatDistribution(low, high, log=low > 0 and high / low >= 100)
    return CategoricalDistribution(sorted({format_cell(v) for v in column}))


def _value(distribution: object, value: Any) -> float | str:
    from optuna.distributions import CategoricalDistribution

    is_choice = isinstance(distribution, CategoricalDistribution)
    return format_cell(value) if is_choice else float(value)
