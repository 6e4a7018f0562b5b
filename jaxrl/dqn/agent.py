"""One DQN agent as pure functions: it acts, it learns, it is evaluated.

Nothing here knows of a population; :mod:`jaxrl.population.tile` maps these functions over one.
The order of things at step ``t`` is Stable-Baselines3's: act, store, and where ``train_freq``
divides the number of steps taken, the target update that is due, then the updates.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.dqn import losses, replay
from jaxrl.dqn.environment import Environment
from jaxrl.dqn.exploration import choose_action
from jaxrl.dqn.hyperparameters import Hyperparameters
from jaxrl.dqn.networks import Network
from jaxrl.dqn.prng import THREEFRY

RETURN_WINDOW = 100
"""Training episodes that a mean return looks back over."""

# What a random key is for. Keys depend on the seed and on this, never on the place in a population.
INITIALISE, ACT, REPLAY, EVALUATE, FINAL = range(5)


class Actor(NamedTuple):
    """An agent's place in its environment, and what its episodes returned."""

    env_state: Any
    observation: jax.Array
    """[O]."""
    episode_return: jax.Array
    """Of the episode under way."""
    returns: jax.Array
    """[RETURN_WINDOW], of the latest training episodes, a ring."""
    episodes: jax.Array
    """int32, training episodes that have ended."""


class Learner(NamedTuple):
    """What training changes."""

    params: Any
    target_params: Any
    adam: optax.ScaleByAdamState
    diverged: jax.Array
    """bool: a loss, a gradient or a parameter was not finite."""
    updates: jax.Array
    """int32, updates made."""


class Sums(NamedTuple):
    """Sums over the updates since they were last reported."""

    loss: jax.Array
    q: jax.Array
    grad_norm: jax.Array
    updates: jax.Array


def no_sums() -> Sums:
    """Sums over no update."""
    return Sums(jnp.float32(0), jnp.float32(0), jnp.float32(0), jnp.int32(0))


_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def agent_key(seed: jax.Array, purpose: int) -> jax.Array:
    """The random key of an agent with ``seed`` (uint32) for ``purpose``."""
    return jax.random.fold_in(jax.random.key(seed, impl=THREEFRY), purpose)


def initialise(seed: jax.Array, env: Environment, network: Network) -> tuple[Actor, Learner]:
    """A new agent, before its first step."""
    params_key, reset_key = jax.random.split(agent_key(seed, INITIALISE))
    observation, env_state = env.reset(reset_key)
    params = network.init(params_key, observation)
    actor = Actor(
        env_state=env_state,
        observation=observation,
        episode_return=jnp.float32(0),
        returns=jnp.zeros(RETURN_WINDOW),
        episodes=jnp.int32(0),
    )
    learner = Learner(
        params=params,
        target_params=params,
        adam=_ADAM.init(params),
        diverged=jnp.bool_(False),
        updates=jnp.int32(0),
    )
    return actor, learner


def act(
    actor: Actor,
    params: Any,
    hyper: Hyperparameters,
    key: jax.Array,
    t: jax.Array,
    *,
    env: Environment,
    network: Network,
) -> tuple[Actor, jax.Array]:
    """The environment step after ``t`` steps: the actor after it, and the replay row ``[W]``.

    Args:
        key: the agent's for acting, the same at every step.
    """
    action_key, step_key = jax.random.split(jax.random.fold_in(key, t))
    q_t = _q_values(network, params, actor.observation, hyper)
    action = choose_action(action_key, q_t, hyper, t)
    step, env_state = env.step(step_key, actor.env_state, action)
    row = replay.pack(actor.observation, action, step)
    ended = step.terminated | step.truncated
    episode_return = actor.episode_return + step.reward
    slot = jnp.arange(RETURN_WINDOW) == actor.episodes % RETURN_WINDOW
    actor = Actor(
        env_state=env_state,
        observation=step.observation,
        episode_return=jnp.where(ended, 0.0, episode_return),
        returns=jnp.where(slot & ended, episode_return, actor.returns),
        episodes=actor.episodes + ended,
    )
    return actor, row


def update_target(
    learner: Learner, hyper: Hyperparameters, t: jax.Array, train_freq: jax.Array | int
) -> Any:
    """The target parameters after the updates due in the ``train_freq`` steps up to ``t``.

    The parameters do not change between two rounds of training, so k soft updates in that time are
    one with ``1 − (1 − tau)^k``, and those of the warm-up change nothing at all.
    """
    interval = hyper.target_update_interval
    due = t // interval - (t - train_freq) // interval
    kept = (1.0 - hyper.tau) ** due

    def updated(new: jax.Array, old: jax.Array) -> jax.Array:
        moved = jnp.where(kept == 0, new, new + kept * (old - new))
        return jnp.where(due > 0, moved, old)

    return jax.tree.map(updated, learner.params, learner.target_params)


def update(
    learner: Learner,
    sums: Sums,
    batch: replay.Batch,
    hyper: Hyperparameters,
    ready: jax.Array,
    any_double_q: jax.Array,
    *,
    network: Network,
) -> tuple[Learner, Sums]:
    """One gradient step on a minibatch; nothing changes where ``ready`` is false.

    Adam (Kingma and Ba 2015) on the mean Huber loss, the gradient clipped by its global norm.

    Args:
        batch: of which the first ``hyper.batch_size`` transitions count.
        any_double_q: bool, false where no agent of the tile has ``double_q``: not batched, so that
            the online network's pass over the next observations is really left out.
    """
    q_t = _q_values(network, learner.target_params, batch.observation_t, hyper)
    q_t_selector = jax.lax.cond(
        any_double_q,
        lambda: jnp.where(
            hyper.double_q, _q_values(network, learner.params, batch.observation_t, hyper), q_t
        ),
        lambda: q_t,
    )
    target = losses.q_target(batch.r_t, batch.discount_t, q_t, q_t_selector)

    def loss_fn(q_tm1: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_tm1 = losses.select_action(q_tm1, batch.a_tm1)
        mean = functools.partial(losses.leading_mean, count=hyper.batch_size)
        return mean(losses.huber(q_tm1 - target, hyper.huber_delta)), mean(q_tm1)

    q_tm1, pullback = network.vjp(learner.params, _normalise(batch.observation_tm1, hyper))
    (loss, q_mean), dq = jax.value_and_grad(loss_fn, has_aux=True)(q_tm1)
    grads = pullback(dq)
    grad_norm = optax.global_norm(grads)
    scale = jnp.minimum(1.0, hyper.max_grad_norm / jnp.maximum(grad_norm, 1e-6))
    steps, adam = _ADAM.update(jax.tree.map(lambda g: g * scale, grads), learner.adam)
    new_learner = learner._replace(
        params=jax.tree.map(lambda p, s: p - hyper.learning_rate * s, learner.params, steps),
        adam=adam,
        diverged=learner.diverged | ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm)),
        updates=learner.updates + 1,
    )
    new_sums = Sums(sums.loss + loss, sums.q + q_mean, sums.grad_norm + grad_norm, sums.updates + 1)
    return jax.tree.map(
        lambda new, old: jnp.where(ready, new, old), (new_learner, new_sums), (learner, sums)
    )


def is_finite(params: Any) -> jax.Array:
    """Whether every parameter is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))


def greedy_return(
    params: Any, hyper: Hyperparameters, key: jax.Array, *, env: Environment, network: Network
) -> jax.Array:
    """The return of one episode of the greedy policy."""

    def running(carry: tuple[Any, ...]) -> jax.Array:
        return ~carry[-1]

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        t, observation, env_state, episode_return, _ = carry
        q_t = _q_values(network, params, observation, hyper)
        action = jnp.argmax(q_t).astype(jnp.int32)
        step, env_state = env.step(jax.random.fold_in(steps_key, t), env_state, action)
        ended = step.terminated | step.truncated
        return t + 1, step.observation, env_state, episode_return + step.reward, ended

    reset_key, steps_key = jax.random.split(key)
    observation, env_state = env.reset(reset_key)
    start = (jnp.int32(0), observation, env_state, jnp.float32(0), jnp.bool_(False))
    return jax.lax.while_loop(running, step, start)[3]


def _q_values(
    network: Network, params: Any, observation: jax.Array, hyper: Hyperparameters
) -> jax.Array:
    """Action values ``[..., A]`` of raw observations ``[..., O]``."""
    return jnp.asarray(network.apply(params, _normalise(observation, hyper)))


def _normalise(observation: jax.Array, hyper: Hyperparameters) -> jax.Array:
    return (observation - hyper.observation_mean) / hyper.observation_std
