"""Q-networks: the definition, in flax, and the same function written for populations of small ones."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.dqn.environment import Environment
from jaxrl.dqn.hyperparameters import Shape
from jaxrl.errors import InputError, named


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

    def vjp(
        self, params: Any, observations: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
        """Action values ``[B, A]``, and what maps their cotangents to those of ``params``."""
        q, pullback = jax.vjp(lambda p: jnp.asarray(self.apply(p, observations)), params)
        return q, lambda dq: pullback(dq)[0]


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """A user's flax module with parameters alone, from batches of observations in the environment's
    own shape to action values ``[B, A]``."""

    module: nn.Module
    observation_shape: tuple[int, ...]

    def init(self, key: jax.Array, observation: jax.Array) -> Any:
        """Parameters for observations like this one, ``[O]``."""
        return self.module.init(key, observation.reshape(1, *self.observation_shape))

    def as_twin(self, params: Any) -> Any:
        """``params`` as the module's variables, which they are."""
        return params

    def apply(self, params: Any, observation: jax.Array) -> jax.Array:
        """Action values ``[..., A]`` of ``observation [..., O]``, with one leading axis at most."""
        q = self.module.apply(params, observation.reshape(-1, *self.observation_shape))
        return jnp.asarray(q).reshape(*observation.shape[:-1], -1)

    def vjp(
        self, params: Any, observations: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
        """Action values ``[B, A]``, and what maps their cotangents to those of ``params``."""
        q, pullback = jax.vjp(lambda p: self.apply(p, observations), params)
        return q, lambda dq: pullback(dq)[0]


def network_of(shape: Shape, env: Environment) -> "OwnNetwork | FastQNetwork":
    """What an agent of this shape learns with: the environment's own network, where it was given
    one."""
    if env.network is None:
        return FastQNetwork(QNetwork.of(shape, env.num_actions))
    given = {"num_actions": env.num_actions, **shape._asdict()}
    fields = {field.name for field in dataclasses.fields(env.network)}
    module = env.network(**{name: v for name, v in given.items() if name in fields})
    return OwnNetwork(module, env.observation_shape)


@functools.lru_cache(maxsize=1000)
def parameter_count(shape: Shape, env: Environment) -> int:
    """Parameters of a Q-network of this shape."""
    if env.network is None:
        widths = (env.observation_size, *shape.hidden_sizes)
        heads = env.num_actions + int(shape.dueling)
        return sum((a + 1) * b for a, b in itertools.pairwise((*widths, heads)))
    return sum(leaf.size for leaf in jax.tree.leaves(_own_parameters(shape, env)))


def _own_parameters(shape: Shape, env: Environment) -> Any:
    """Shapes of a user's parameters; raises ``InputError`` where it is no Q-network here."""
    network: Any = network_of(shape, env)
    rows = jax.ShapeDtypeStruct((2, env.observation_size), jnp.float32)
    try:
        params = jax.eval_shape(lambda key, x: network.init(key, x[0]), jax.random.key(0), rows)
        q = jax.eval_shape(network.apply, params, rows)
        if set(params) != {"params"}:
            raise TypeError(f"it has {', '.join(params)}, not parameters alone")
        if q.shape != (2, env.num_actions):
            raise TypeError(f"of two observations it gives {q.shape}, not (2, {env.num_actions})")
    except Exception as error:  # whatever a user's code raises
        name = env.network.__name__
        raise InputError(f"the network {name} cannot be used ({named(error)}).") from None
    return params


class Layer(NamedTuple):
    """A dense layer ``weight @ x + bias`` on columns ``x``."""

    weight: jax.Array
    """[outputs, inputs]."""
    bias: jax.Array
    """[outputs]."""


@dataclasses.dataclass(frozen=True)
class FastQNetwork:
    """:class:`QNetwork` with activations laid out ``[features, B]`` and its gradient by hand.

    Nearly every product then contracts the last axis of its left side with the first of its right
    one, the order in which XLA's kernels for a CPU are fast. ``params`` are a tuple of
    :class:`Layer`; the last one is the head, where it is dueling with the value's row first.
    """

    twin: QNetwork

    def init(self, key: jax.Array, observation: jax.Array) -> tuple[Layer, ...]:
        """Parameters spread as the twin's are, drawn at once (which is quick to compile)."""
        outputs = (*self.twin.hidden_sizes, sum(self._head_names().values()))
        sizes = list(zip(outputs, (observation.size, *outputs[:-1]), strict=True))
        drawn = jax.random.uniform(key, (sum(b * (a + 1) for b, a in sizes),), minval=-1, maxval=1)
        layers, start = [], 0
        for rows, fan_in in sizes:
            values = drawn[start : start + rows * (fan_in + 1)] * fan_in**-0.5
            start += rows * (fan_in + 1)
            split = rows * fan_in
            layers.append(Layer(values[:split].reshape(rows, fan_in), values[split:]))
        return tuple(layers)

    def as_twin(self, params: tuple[Layer, ...]) -> Any:
        """``params``, on the host or not, each with any leading axes, as the twin's variables."""
        *hidden, head = params
        layers = {f"hidden_{i}": layer for i, layer in enumerate(hidden)}
        start = 0
        for name, size in self._head_names().items():
            rows = slice(start, start + size)
            layers[name] = Layer(head.weight[..., rows, :], head.bias[..., rows])
            start += size
        return {
            "params": {
                name: {"bias": bias, "kernel": weight.swapaxes(-1, -2)}
                for name, (weight, bias) in layers.items()
            }
        }

    def apply(self, params: tuple[Layer, ...], observation: jax.Array) -> jax.Array:
        """Action values ``[..., A]`` of ``observation [..., O]``, with one leading axis at most."""
        columns = observation.T if observation.ndim > 1 else observation[:, None]
        q = self._q(self._activations(params, columns)[-1])
        return q.T if observation.ndim > 1 else q[:, 0]

    def vjp(
        self, params: tuple[Layer, ...], observations: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], tuple[Layer, ...]]]:
        """Action values ``[B, A]``, and what maps their cotangents to those of ``params``."""
        activations = self._activations(params, observations.T)

        def pullback(dq: jax.Array) -> tuple[Layer, ...]:
            # The barriers keep transposes apart from the products, which they would slow by half.
            error = jax.lax.optimization_barrier(dq.T)
            if self.twin.dueling:  # q = value + advantage − mean(advantage)
                total = jnp.sum(error, axis=0, keepdims=True)
                error = jnp.concatenate([total, error - total / self.twin.num_actions])
            gradients = []
            for index in reversed(range(len(params))):
                inputs = activations[index]
                gradients.append(Layer(error @ inputs.T, jnp.sum(error, axis=1)))
                if index > 0:
                    weight = jax.lax.optimization_barrier(params[index].weight.T)
                    error = jnp.where(inputs > 0, weight @ error, 0.0)
            return tuple(reversed(gradients))

        return self._q(activations[-1]).T, pullback

    def _activations(self, params: tuple[Layer, ...], x: jax.Array) -> list[jax.Array]:
        """What goes into each layer, ``[features, B]``, and what comes out of the last one."""
        activations = [x]
        for index, (weight, bias) in enumerate(params):
            x = weight @ x + bias[:, None]
            x = nn.relu(x) if index < len(params) - 1 else x
            activations.append(x)
        return activations

    def _q(self, head: jax.Array) -> jax.Array:
        """Action values ``[A, B]`` of what the head gave."""
        if not self.twin.dueling:
            return head
        return head[:1] + head[1:] - jnp.mean(head[1:], axis=0, keepdims=True)

    def _head_names(self) -> dict[str, int]:
        """The twin's layers that the head stands for, with their sizes."""
        if self.twin.dueling:
            return {"value": 1, "advantage": self.twin.num_actions}
        return {"q": self.twin.num_actions}


Network = QNetwork | FastQNetwork | OwnNetwork
"""Has ``init(key, observation)``, ``apply(params, observation)`` and ``vjp(params, observations)``;
:mod:`jaxrl.dqn.agent` asks for nothing else."""
