"""Which configurations of a search are trained again, on further seeds, before anybody believes them.

Who leads after one seed each is the best and the luckiest. So after every generation the most
promising are raced on further seeds, as in the intensification of SMAC (Hutter et al. 2011,
https://doi.org/10.1007/978-3-642-25566-3_40): whoever on average is at least as good as the incumbent,
the best of those that were verified, has to show it on four seeds, then on eight, then on sixteen.
What is best is then said by :meth:`Results.ranking`, to which few seeds are worth less than many.
"""

import math

from jaxrl.search.results import Results

LEAST = 4
"""Seeds that a verified configuration has at least."""
_MOST = 16


def further_seeds(results: Results, count: int, target: float | None = None) -> dict[int, int]:
    """How many further seeds the most promising configurations get, ``count`` of them at most; none
    where the average is below a ``target``."""
    ranking = results.sound()
    verified = [config for config in ranking if len(results.seeds(config)) >= LEAST]
    bar = -math.inf if target is None else target
    bar = max(bar, results.average(verified[0])) if verified else bar
    open_ = [c for c in ranking if len(results.seeds(c)) < _MOST and results.average(c) >= bar]
    promising = sorted(open_, key=lambda c: (-results.average(c), len(results.seeds(c))))
    return {c: _further(len(results.seeds(c))) for c in promising[:count]}


def _further(seeds: int) -> int:
    """As many as it has, or what it lacks to be verified."""
    return LEAST - seeds if seeds < LEAST else min(seeds, _MOST - seeds)
