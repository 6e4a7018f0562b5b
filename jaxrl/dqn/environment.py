"""The environment adapter: the only file that touches gymnax.

gymnax is imported where it is used: its import starts JAX's backends, and which devices there are has
to be said before (:func:`jaxrl.population.devices.configure`).
"""

import contextlib
import dataclasses
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.errors import InputError, named

WORKING = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Pong-misc",
)
"""gymnax's own environments that work: discrete actions, array observations (a test checks it)."""


class TimeStep(NamedTuple):
    """What one step of an environment gives. Scalars, but for the observations."""

    observation: jax.Array
    """[O], where the agent acts next: the first of a new episode if this one ended."""
    reward: jax.Array
    terminated: jax.Array
    """bool: the episode ended by the environment's rules; nothing follows."""
    truncated: jax.Array
    """bool: the episode ran into its time limit; the return would have gone on."""
    final_observation: jax.Array
    """[O], what the action led to, before any reset."""


class Environment:
    """A gymnax environment with discrete actions and float32 observations, flattened to ``[O]``.

    One compares equal to itself alone, so that it can be a static argument.
    """

    def __init__(self, env_id: str, env: Any, params: Any, network: Any = None) -> None:
        """Adapts ``env`` with ``params``; ``env_id`` is what messages call it.

        Args:
            network: a flax module's class, for agents that learn here with none of jaxrl's; it has the
                field ``num_actions``, and is told others of an agent's shape that it has.

        Raises:
            InputError: its actions are not discrete or its observations not an array.
        """
        from gymnax.environments import spaces

        actions, observations = env.action_space(params), env.observation_space(params)
        if not isinstance(actions, spaces.Discrete) or not isinstance(observations, spaces.Box):
            raise InputError(
                f"environment {env_id!r} has {_name(actions)} actions and {_name(observations)} "
                "observations; a DQN needs discrete actions and array observations. These work: "
                f"{', '.join(WORKING)}."
            )
        self.env_id = env_id
        self._env = env
        self._params = params
        self.num_actions = int(env.num_actions)
        self.max_episode_steps = int(params.max_steps_in_episode)
        key = jax.random.key(0, impl="threefry2x32")
        observation, state = jax.eval_shape(lambda: self._env.reset(key, self._params))
        self.observation_shape = tuple(observation.shape)
        self.observation_size = int(observation.size)
        self.network = network
        # A reset gives Python numbers where a step gives arrays: a loop's carry needs one type.
        self._state_types = jax.eval_shape(
            lambda s: env.step(key, s, jnp.int32(0), params)[1], state
        )

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """The first observation ``[O]`` of a new episode, and its state."""
        observation, state = self._env.reset(key, self._params)
        return _flat(observation), self._as_state(state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[TimeStep, Any]:
        """One step with ``action`` (int32 scalar); an episode that ends starts anew."""
        observation, state, reward, terminated, truncated, info = self._env.step(
            key, state, action, self._params
        )
        step = TimeStep(
            observation=_flat(observation),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.asarray(truncated, bool),
            final_observation=_flat(info["final_observation"]),
        )
        return step, self._as_state(state)

    def _as_state(self, state: Any) -> Any:
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, self._state_types)


def make(env_id: str, network: str | None = None) -> Environment:
    """The registered environment ``env_id``, or where it is ``MODULE:NAME`` what that class or
    function of no arguments gives: an environment after gymnax's pattern, whose ``default_params``
    have ``max_steps_in_episode``.

    Args:
        network: ``MODULE:NAME`` of a flax module's class, see :class:`Environment`.

    Raises:
        InputError: no such environment or network, or not one that a DQN can act in.
    """
    with _imported_later("seaborn"):  # for pictures only, and the longest of its imports
        import gymnax

    own = None if network is None else _load_network(network)
    if ":" in env_id:
        try:
            env = _imported(env_id)()
            return Environment(env_id, env, env.default_params, own)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the environment {env_id} cannot be used ({named(error)}).") from None
    if env_id not in gymnax.registered_envs or env_id.startswith("MNIST"):  # it would download
        raise InputError.unknown("environment", env_id, WORKING)
    env, params = gymnax.make(env_id)
    return Environment(env_id, env, params, own)


def _load_network(name: str) -> Any:
    """The flax module's class ``MODULE:NAME``; imports what it is told, so nobody else may say it.

    Raises:
        InputError: there is none, or it is something else.
    """
    try:
        found = _imported(name)
        if "num_actions" not in {field.name for field in dataclasses.fields(found)}:
            raise TypeError("it has no field num_actions")
        return found
    except Exception as error:
        raise InputError(f"the network {name} cannot be used ({named(error)}).") from None


@contextlib.contextmanager
def _imported_later(name: str) -> Iterator[None]:
    """Inside, importing the module ``name`` gives one that is imported once something of it is used."""
    if name in sys.modules:
        yield
        return
    later = types.ModuleType(name)

    def forget() -> None:
        if sys.modules.get(name) is later:
            del sys.modules[name]

    def attribute(what: str) -> Any:
        forget()
        return getattr(importlib.import_module(name), what)

    later.__dict__["__getattr__"] = attribute
    sys.modules[name] = later
    try:
        yield
    finally:
        forget()


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def observation_statistics(
    environment: Environment, steps: int = 10_000
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation ``[O]`` of observations over ``steps`` of random play.

    The same for every agent of an environment: the key is fixed. A deviation of nearly zero is
    taken as 1, so that a constant entry stays finite.
    """
    key = jax.random.key(0, impl="threefry2x32")

    def step(carry: tuple[Any, jax.Array], t: jax.Array) -> tuple[tuple[Any, jax.Array], jax.Array]:
        state, observation = carry
        action_key, step_key = jax.random.split(jax.random.fold_in(key, t))
        action = jax.random.randint(action_key, (), 0, environment.num_actions)
        timestep, state = environment.step(step_key, state, action)
        return (state, timestep.observation), observation

    observation, state = environment.reset(jax.random.fold_in(key, steps))
    _, observations = jax.lax.scan(step, (state, observation), jnp.arange(steps))
    std = jnp.std(observations, axis=0)
    return jnp.mean(observations, axis=0), jnp.where(std < 1e-6, 1.0, std)


def _flat(observation: jax.Array) -> jax.Array:
    return jnp.ravel(jnp.asarray(observation, jnp.float32))


def _name(space: Any) -> str:
    return {"Box": "array"}.get(type(space).__name__, type(space).__name__.lower())
