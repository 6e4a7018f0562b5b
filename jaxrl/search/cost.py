"""Score against cost: what each configuration took, and which are worth it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxrl.search.results import Results
from jaxrl.search.table import write_table


@dataclasses.dataclass(frozen=True)
class Cost:
    """A configuration's score and cost."""

    config: int
    score: float
    operations: float
    """Of the updates of a whole training of one seed, known before: floating-point operations."""
    device_seconds: float
    """Measured, of all its seeds; less where it was stopped early."""
    on_front: bool
    """Whether no other has at least this score for fewer operations."""


def costs(results: Results, operations: Mapping[int, float]) -> list[Cost]:
    """Of every configuration, in the order of their numbers.

    Args:
        operations: of one seed, by configuration.
    """
    found = {}
    for config, each in sorted(operations.items()):
        seeds = results.seeds(config)
        spent = sum(result.device_seconds for result in seeds)
        found[config] = (results.sound_average(config), each, spent)
    front = _front({c: (score, ops) for c, (score, ops, _) in found.items()})
    return [Cost(config, *values, on_front=config in front) for config, values in found.items()]


def to_csv(rows: Sequence[Cost]) -> str:
    """``costs.csv``."""
    names = [field.name for field in dataclasses.fields(Cost)]
    return write_table(names, map(dataclasses.asdict, rows))


def _front(points: Mapping[int, tuple[float, float]]) -> set[int]:
    """Who is on the Pareto front of (score, operations); of equals the lower number."""
    front, best = set(), -math.inf
    scored = [config for config, (score, _) in points.items() if not math.isnan(score)]
    for config in sorted(scored, key=lambda c: (points[c][1], -points[c][0], c)):
        score = points[config][0]
        if score > best:
            front.add(config)
            best = score
    return front
