"""What the best configurations of a search are worth on seeds that had no part in choosing them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl.search.results import Results, interquartile_mean

_RESAMPLES = 10_000
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Finalist:
    """A configuration's scores in the search and on fresh seeds; each seed's score is the mean return
    of its final evaluation."""

    config: int
    search_score: float
    """What it was chosen for."""
    fresh_iqm: float
    """Interquartile mean over the fresh seeds, as :func:`interquartile_mean`."""
    fresh_low: float
    """Of its 95 % percentile bootstrap interval over seeds (Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264; with one environment there is one stratum); NaN of one seed."""
    fresh_high: float
    fresh_mean: float
    solved: float | None
    """Share of the fresh seeds that reach the environment's threshold, where it has one."""
    flattery: float
    """By how much the search score is above the same average of the fresh seeds."""


def compare(search: Results, fresh: Results, threshold: float | None) -> list[Finalist]:
    """The finalists, the winner first: by their results on fresh seeds."""
    return [_finalist(config, search, fresh, threshold) for config in fresh.ranking()]


def interval(scores: Sequence[float], rank_by: str = "iqm") -> tuple[float, float]:
    """The 95 % interval of the interquartile mean, or of the ``mean``; the same for the same scores."""
    if len(scores) < 2 or np.isnan(scores).any():
        return math.nan, math.nan
    from scipy.stats import bootstrap, trim_mean

    cut = 0.25 if rank_by == "iqm" else 0.0
    found = bootstrap(
        (np.asarray(scores),),
        lambda x, axis: trim_mean(x, cut, axis=axis),
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def to_json(finalists: Sequence[Finalist]) -> list[dict[str, Any]]:
    """As ``finalists.json`` and the journal have it: what is not a number is null."""
    rows = [dataclasses.asdict(finalist) for finalist in finalists]
    return [
        {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in row.items()}
        for row in rows
    ]


def _finalist(config: int, search: Results, fresh: Results, threshold: float | None) -> Finalist:
    scores = [fresh.score(result) for result in fresh.seeds(config)]
    low, high = interval(scores)
    solved = None if threshold is None else float(np.mean(np.asarray(scores) >= threshold))
    found, mean = search.average(config), float(np.mean(scores))
    iqm = interquartile_mean(scores)
    flattery = found - fresh.average(config)
    return Finalist(config, found, iqm, low, high, mean, solved, flattery)


def reward_threshold(env_id: str) -> float | None:
    """From which mean return on Gymnasium calls an environment solved, if it says so."""
    import gymnasium

    if ":" in env_id:  # a user's own, which Gymnasium would import
        return None
    try:
        return gymnasium.spec(env_id).reward_threshold
    except gymnasium.error.Error:
        return None
