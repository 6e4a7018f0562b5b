"""The mathematics of the DQN loss."""

import jax
import jax.numpy as jnp


def huber(error: jax.Array, delta: jax.Array) -> jax.Array:
    """Huber loss (1964): ½e² up to ``delta``, then ``delta``(\\|e\\| − ½ ``delta``).

    An infinite ``delta`` gives half the squared error. Written so that neither value nor gradient
    meets ∞ · 0, whatever ``delta``.
    """
    clipped = jnp.clip(error, -delta, delta)
    return clipped * (error - 0.5 * clipped)


def select_action(q: jax.Array, action: jax.Array) -> jax.Array:
    """``q[action]`` for ``q [..., A]`` and ``action [...]``.

    A masked sum, since the gradient of a gather is a scatter, which nothing fuses with.
    """
    chosen = jnp.arange(q.shape[-1]) == action[..., None]
    return jnp.sum(jnp.where(chosen, q, 0.0), axis=-1)


def leading_mean(values: jax.Array, count: jax.Array) -> jax.Array:
    """Mean of the first ``count`` of ``values [B]``; no gradient reaches the others."""
    used = jnp.arange(values.shape[0]) < count
    return jnp.sum(jnp.where(used, values, 0.0)) / count


def q_target(
    r_t: jax.Array, discount_t: jax.Array, q_t: jax.Array, q_t_selector: jax.Array
) -> jax.Array:
    """What a Q-value should be: ``r_t + discount_t · q_t[argmax q_t_selector]``.

    Args:
        r_t: [...], reward (summed and discounted over n steps).
        discount_t: [...], gamma to the number of steps, zero where the episode terminated.
        q_t: [..., A], values of the target network.
        q_t_selector: [..., A], what chooses the action: ``q_t`` itself (Mnih et al. 2015) or the
            online network's values (double DQN, van Hasselt et al. 2016,
            https://arxiv.org/abs/1509.06461).
    """
    return r_t + discount_t * select_action(q_t, jnp.argmax(q_t_selector, axis=-1))
