"""Epsilon-greedy exploration."""

import jax
import jax.numpy as jnp

from jaxrl.dqn.hyperparameters import Hyperparameters


def epsilon(hyper: Hyperparameters, t: jax.Array) -> jax.Array:
    """Probability of a random action after ``t`` steps: linear from start to end, then constant."""
    fraction = jnp.minimum(t / jnp.maximum(hyper.epsilon_decay_steps, 1), 1.0)
    return hyper.epsilon_start + fraction * (hyper.epsilon_end - hyper.epsilon_start)


def choose_action(
    key: jax.Array, q_t: jax.Array, hyper: Hyperparameters, t: jax.Array
) -> jax.Array:
    """The action of step ``t`` for action values ``q_t [A]``: int32, random in the warm-up."""
    num_actions = q_t.shape[-1]
    explore, which = jax.random.uniform(key, (2,))
    random_action = jnp.minimum(jnp.int32(which * num_actions), num_actions - 1)
    is_random = (t < hyper.learning_starts) | (explore < epsilon(hyper, t))
    return jnp.where(is_random, random_action, jnp.argmax(q_t).astype(jnp.int32))
