"""Every combination of a space's choices and steps."""

import random
from collections.abc import Iterator
from typing import Any

from jaxrl.errors import InputError
from jaxrl.search.parameters import Varying
from jaxrl.search.space import Space

_MOST = 100_000


def combinations(space: Space, seed: int, total: int) -> list[dict[str, float]]:
    """The coordinates of all combinations, in an order that ``seed`` decides. A hyperparameter
    ``seed`` is not combined with.

    Raises:
        InputError: something has too many values to list, or the combinations are too many or fewer
            than ``total``.
    """
    for name in space.varying:
        if name != "seed" and space.parameters[name].levels is None:
            raise InputError(
                f"a grid lists every value, and {name} is an interval without a step: give it a step "
                "or choices, or use another --sampler."
            )
    found: list[dict[str, float]] = []
    for place in _walk(space):
        if len(found) == _MOST:
            raise InputError(
                f"this grid has more than {_MOST:,} combinations: use fewer choices, or --sampler "
                "random."
            )
        found.append(place)
    if len(found) < total:
        raise InputError(
            f"this grid has {len(found)} combinations, fewer than the {total} configurations asked "
            f"for: use --configs {len(found)} or less, or more choices."
        )
    random.Random(seed).shuffle(found)
    return found


def _walk(space: Space) -> Iterator[dict[str, float]]:
    """Goes through the tree of what varies, each branch in turn: what varies further down may depend
    on the branches above."""
    path: list[tuple[int, int]] = []  # at each fork, the branch taken, and how many there are
    while True:
        place: dict[str, float] = {}

        def draw(name: str, parameter: Varying, place: dict[str, float] = place) -> Any:
            if name == "seed":
                return None
            if len(place) == len(path):
                path.append((0, parameter.levels or 1))
            branch, branches = path[len(place)]
            place[name] = (branch + 0.5) / branches
            return parameter.at(place[name])

        space.build(draw)
        yield place
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = (path[-1][0] + 1, path[-1][1])
