"""Samplers: where in the unit cube of a space to look. The same seed gives the same points, and the
first of more points are the points of fewer."""

from collections.abc import Callable

import numpy as np


def random(seed: int, count: int, dimensions: int) -> np.ndarray:
    """``[count, dimensions]`` independent uniform points."""
    return np.random.default_rng(seed).random((count, dimensions))


def sobol(seed: int, count: int, dimensions: int) -> np.ndarray:
    """``[count, dimensions]`` points of a scrambled Sobol sequence (Owen 1998), which fill the cube
    more evenly than chance."""
    if dimensions == 0:
        return np.empty((count, 0))
    from scipy.stats import qmc

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    return sequence.random_base2(max(count - 1, 0).bit_length())[:count]


SAMPLERS: dict[str, Callable[[int, int, int], np.ndarray]] = {"random": random, "sobol": sobol}
