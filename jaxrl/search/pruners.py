"""Early stopping: which configurations of a generation go on at a rung.

All of a generation reach a rung before anybody is judged, so that who is asked first does not matter.
Scores are evaluation returns of the policies so far, a configuration's mean over its seeds. Rungs are
counted from the end of the warm-up: before an agent learns, its score is chance.
"""

import abc
import math
from collections.abc import Callable, Mapping, Sequence

FACTOR = 3
"""η of successive halving: one of so many goes on at each rung."""
_RUNGS = 2


class Pruner(abc.ABC):
    """Judges the configurations of one generation at its ``rungs``, which are evaluation steps."""

    rungs: tuple[int, ...]

    @abc.abstractmethod
    def stopped(self, rung: int, scores: Mapping[int, float]) -> set[int]:
        """The configurations that end at a rung, of those that have come so far.

        Args:
            scores: by configuration; NaN for one that diverged.
        """


class Halving(Pruner):
    """Successive halving (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943): at each rung
    the best third goes on, three times as far.

    Args:
        eval_steps: of the generation, the last its end.
        warm_up: steps before which some of its agents do not learn.
    """

    def __init__(self, eval_steps: Sequence[int], configs: Sequence[int], warm_up: int = 0) -> None:
        self.rungs = _rungs(eval_steps, warm_up)

    def stopped(self, rung: int, scores: Mapping[int, float]) -> set[int]:
        return _beaten(scores)


class Hyperband(Pruner):
    """Hyperband (Li et al. 2018, https://arxiv.org/abs/1603.06560): brackets of halving with fewer and
    fewer rungs, side by side, since nobody knows how early a configuration can be judged.

    Configurations are dealt to brackets so that each bracket takes about as many steps; a
    bracket with more rungs begins with more of them.
    """

    def __init__(self, eval_steps: Sequence[int], configs: Sequence[int], warm_up: int = 0) -> None:
        longest = _rungs(eval_steps, warm_up)
        brackets = [longest[start:] for start in range(len(longest) + 1)]
        weights = [_share(bracket, eval_steps[-1]) for bracket in brackets]
        self.rungs = longest
        self._bracket = {
            config: brackets[which]
            for config, which in zip(configs, _deal(weights, len(configs)), strict=True)
        }

    def stopped(self, rung: int, scores: Mapping[int, float]) -> set[int]:
        ended: set[int] = set()
        for bracket in {self._bracket[config] for config in scores}:
            if rung in bracket:
                ended |= _beaten({c: s for c, s in scores.items() if self._bracket[c] == bracket})
        return ended


class Median(Pruner):
    """Stops whoever is below the median of all that have come as far (the rule of Vizier, Golovin et
    al. 2017), at every evaluation but those of the first quarter."""

    def __init__(self, eval_steps: Sequence[int], configs: Sequence[int], warm_up: int = 0) -> None:
        first = _after_warm_up(1 / 4, eval_steps, warm_up)
        self.rungs = tuple(s for s in eval_steps[:-1] if s >= first)

    def stopped(self, rung: int, scores: Mapping[int, float]) -> set[int]:
        order = ranked(scores)
        middle = scores[order[(len(order) - 1) // 2]]
        return {c for c in order[1:] if math.isnan(scores[c]) or scores[c] < middle}


PRUNERS: dict[str, Callable[[Sequence[int], Sequence[int], int], Pruner | None]] = {
    "none": lambda eval_steps, configs, warm_up: None,
    "halving": Halving,
    "hyperband": Hyperband,
    "median": Median,
}
"""By name what makes the pruner of a generation, of its evaluation steps, its configurations and its
warm-up."""


def _after_warm_up(share: float, eval_steps: Sequence[int], warm_up: int) -> float:
    """The step after this share of the way from the warm-up, or half of the steps, to the end."""
    begin = min(warm_up, eval_steps[-1] / 2)
    return begin + share * (eval_steps[-1] - begin)


def _rungs(eval_steps: Sequence[int], warm_up: int) -> tuple[int, ...]:
    """The evaluation steps nearest to a ninth and a third of the way, before its end."""
    ideal = [_after_warm_up(FACTOR**-k, eval_steps, warm_up) for k in range(_RUNGS, 0, -1)]
    nearest = [min(eval_steps, key=lambda step: abs(step - way)) for way in ideal]
    return tuple(sorted({step for step in nearest if step < eval_steps[-1]}))


def _beaten(scores: Mapping[int, float]) -> set[int]:
    """All but the best third."""
    return set(ranked(scores)[math.ceil(len(scores) / FACTOR) :])


def ranked(scores: Mapping[int, float]) -> list[int]:
    """Configurations, the best first; those without a score last, then the lower number."""
    return sorted(scores, key=lambda c: (math.isnan(scores[c]), -scores[c], c))


def _share(rungs: Sequence[int], steps: int) -> float:
    """Of the steps of a whole training, what a configuration of such a bracket takes on average."""
    total, left, before = 0.0, 1.0, 0
    for end in (*rungs, steps):
        total += left * (end - before)
        left, before = left / FACTOR, end
    return total / steps


def _deal(costs: Sequence[float], count: int) -> list[int]:
    """For each of ``count``, which bracket: always the one that has been given least."""
    spent, dealt = [0.0] * len(costs), []
    for _ in range(count):
        which = min(range(len(costs)), key=lambda b: spent[b] + costs[b])
        spent[which] += costs[which]
        dealt.append(which)
    return dealt
