"""What agents and tiles cost, known before they are trained."""

import dataclasses
import itertools
from collections.abc import Collection

import numpy as np

from jaxrl.dqn.environment import Environment
from jaxrl.dqn.hyperparameters import Cadence, Configuration, Shape
from jaxrl.dqn.networks import parameter_count
from jaxrl.population.devices import Hardware


def updates(configuration: Configuration, steps: int) -> int:
    """Updates that an agent makes in its first ``steps`` steps."""
    train_freq, gradient_steps = configuration.cadence
    rounds = steps // train_freq - min(configuration.learning_starts, steps) // train_freq
    return rounds * gradient_steps


def seconds(
    configuration: Configuration, env: Environment, steps: int, hardware: Hardware
) -> float:
    """A rough time for an agent on one worker, in a tile with others like it."""
    width, cadences = hardware.tile_width, [configuration.cadence]
    step = tile_seconds(hardware.platform, configuration.shape, env, width, cadences)
    return steps * step / width


def operations(configuration: Configuration, env: Environment, steps: int) -> float:
    """Floating-point operations of an agent's updates, their matrix products: the target network's
    forward pass, the online network's, and a backward pass of two; acting and everything else not
    counted. Of a network of one's own, a product a parameter, which is too few of a convolution."""
    widths = (env.observation_size, *configuration.hidden_sizes, env.num_actions)
    products = sum(a * b for a, b in itertools.pairwise(widths))
    if env.network is not None:
        products = parameter_count(configuration.shape, env)
    return updates(configuration, steps) * 4.0 * configuration.batch_size * 2 * products


@dataclasses.dataclass(frozen=True)
class _Speed:
    """What a kind of device takes, in seconds: some for a tile, some for each of its agents."""

    tile_step: float
    """An environment step's fixed part."""
    step: float
    bytes_per_second: float
    """At which acting reads the parameters."""
    tile_update: float
    update: float
    parameter: float
    """For each parameter of an update: the optimiser, and packing for products."""
    flops: float
    """Floating-point operations a second of an update's products."""


# Measured on a core of the CPU that benchmarks/results names, all cores at work, and on an H200.
_SPEEDS = {
    "cpu": _Speed(0, 0.4e-6, 80e9, 0, 6e-6, 1.8e-9, 80e9),
    "gpu": _Speed(31e-6, 0, 3e12, 75e-6, 0, 7e-12, 20e12),
}
COMPILE_SECONDS = 4.0
"""The programs of a shape, for that CPU."""
_GPU_COMPILE_SECONDS = 14.0
"""For that GPU."""


def compile_seconds(hardware: Hardware, shapes: int) -> float:
    """A rough time for compiling the programs of so many shapes, two of them at a time."""
    if hardware.platform == "gpu":
        return _GPU_COMPILE_SECONDS * shapes / 2
    return COMPILE_SECONDS * shapes / min(2, len(hardware.devices))


def tile_seconds(
    platform: str, shape: Shape, env: Environment, width: int, cadences: Collection[Cadence]
) -> float:
    """A rough time for an environment step of a tile whose agents have these cadences: a step of
    each, and updates of four passes (online, target, and a backward pass twice as dear)."""
    speed = _SPEEDS[platform]
    parameters = parameter_count(shape, env)
    products = 4 * shape.minibatch_rows * 2 * parameters
    step = speed.step + 4 * parameters / speed.bytes_per_second
    update = speed.update + speed.parameter * parameters + products / speed.flops
    return (
        speed.tile_step
        + width * step
        + _updates_per_step(cadences) * (speed.tile_update + width * update)
    )


def _updates_per_step(cadences: Collection[Cadence]) -> float:
    """Updates that a tile makes for each environment step: as many at a time as who makes most."""
    distinct = set(cadences)
    if len(distinct) == 1:
        (cadence,) = distinct
        return cadence.gradient_steps / cadence.train_freq
    steps = np.arange(1, _MEAN_OVER + 1)
    due = [(steps % freq == 0) * updates for freq, updates in distinct]
    return float(np.mean(np.max(due, axis=0)))


_MEAN_OVER = 4096
"""Steps."""
