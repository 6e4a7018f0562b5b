"""What an agent costs, known before it is trained."""

import itertools

from jaxrl.dqn.environment import Environment
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.dqn.networks import parameter_count
from jaxrl.population.devices import Hardware
from jaxrl.population.plan import tile_seconds


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
