"""Q-networks."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.dqn.hyperparameters import Shape


def _uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Uniform in ±1/√fan_in, as PyTorch's ``Linear`` starts its weights and biases."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _dense(features: int, fan_in: int, name: str) -> nn.Dense:
    init = _uniform_fan_in(fan_in)
    return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


class QNetwork(nn.Module):
    """A multilayer perceptron from observations ``[..., O]`` to action values ``[..., A]``.

    No hidden layers make it linear. ``dueling`` splits the head into a value and advantages around
    their mean (Wang et al. 2016, https://arxiv.org/abs/1511.06581, equation 9).
    """

    num_actions: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    dueling: bool = False

    @classmethod
    def of(cls, shape: Shape, num_actions: int) -> "QNetwork":
        return cls(num_actions, shape.hidden_sizes, shape.dueling)

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        x = observation
        for index, width in enumerate(self.hidden_sizes):
            x = nn.relu(_dense(width, x.shape[-1], f"hidden_{index}")(x))
        if not self.dueling:
            return _dense(self.num_actions, x.shape[-1], "q")(x)
        value = _dense(1, x.shape[-1], "value")(x)
        advantage = _dense(self.num_actions, x.shape[-1], "advantage")(x)
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)
