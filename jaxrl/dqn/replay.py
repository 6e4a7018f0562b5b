"""Experience replay: one ring for a tile of agents, written at a clock that they share.

A buffer size is a *window*, not an allocation: every agent writes step ``t`` into row ``t mod C``,
and samples only from its own last ``buffer_size`` rows. So agents with different buffer sizes share
a shape, and a write is one slice at an index that no agent has to itself.

A transition is one packed row of ``2 O + 4`` float32 values, so that a batch is one gather:
``observation [O], final observation [O], action, reward, terminated, truncated``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.dqn.environment import TimeStep


class Batch(NamedTuple):
    """A minibatch of (n-step) transitions."""

    observation_tm1: jax.Array
    """[B, O]."""
    a_tm1: jax.Array
    """[B], int32."""
    r_t: jax.Array
    """[B], rewards, summed and discounted over the steps of the sequence."""
    discount_t: jax.Array
    """[B], gamma to the number of steps, zero where the sequence ended in a terminal state."""
    observation_t: jax.Array
    """[B, O], where to bootstrap."""


def row_size(observation_size: int) -> int:
    """Float32 values in a packed transition."""
    return 2 * observation_size + 4


def pack(observation: jax.Array, action: jax.Array, step: TimeStep) -> jax.Array:
    """The row ``[2 O + 4]`` of one transition."""
    scalars = (action, step.reward, step.terminated, step.truncated)
    tail = jnp.stack([jnp.asarray(x, jnp.float32) for x in scalars])
    return jnp.concatenate([observation, step.final_observation, tail])


def write(ring: jax.Array, rows: jax.Array, t: jax.Array) -> jax.Array:
    """Puts the rows ``[P, W]`` of step ``t`` (from 0) into the ring ``[P, C, W]``, in place.

    Not under ``vmap``: the index is shared, so it is a slice update and no scatter.
    """
    return jax.lax.dynamic_update_slice_in_dim(ring, rows[:, None], t % ring.shape[1], axis=1)


class Choice(NamedTuple):
    """Which transitions make up a minibatch."""

    ages: jax.Array
    """[B], int32, how many transitions ago each was written, 0 the newest."""
    positions: jax.Array
    """[B, n], rows of the ring: of the transition and of those that follow it."""


def choose(
    key: jax.Array,
    t: jax.Array,
    buffer_size: jax.Array,
    *,
    capacity: int,
    rows: int,
    n_step: int,
) -> Choice:
    """A minibatch of one agent, uniform with replacement over its window.

    Args:
        key: consumed.
        t: transitions written so far, 1 or more.
        rows: B. The first ones are the same for every number of rows.
        buffer_size: the agent's window in transitions; ``capacity``, the rows of the ring, is at
            least ``min(buffer_size, t)``.
    """
    ages = _below(jax.random.bits(key, (rows,)), jnp.minimum(t, buffer_size))
    return Choice(ages, (t - 1 - ages[:, None] + jnp.arange(n_step)) % capacity)


def read(ring: jax.Array, choice: Choice, gamma: jax.Array) -> Batch:
    """The minibatch of one agent.

    A sequence of n transitions ends early at the end of its episode or at the newest transition,
    and bootstraps there with gamma to the number of steps taken.

    Args:
        ring: [C, W], the agent's rows.
        gamma: discount factor.
    """
    ages, positions = choice
    offsets = jnp.arange(positions.shape[1])
    rows = ring.at[positions].get(mode="promise_in_bounds")  # [B, n, W]
    size = (ring.shape[1] - 4) // 2
    reward, ended = rows[..., -3], (rows[..., -2] > 0) | (rows[..., -1] > 0)
    # A step belongs to the sequence if it has been written and no step before it ended the episode.
    first = jnp.zeros_like(ended[:, :1])
    ended_before = jnp.cumsum(jnp.concatenate([first, ended[:, :-1]], axis=1), axis=1) > 0
    taken = (offsets <= ages[:, None]) & ~ended_before
    is_last = offsets == jnp.sum(taken, axis=1, keepdims=True) - 1
    last = jnp.sum(jnp.where(is_last[..., None], rows, 0.0), axis=1)
    return Batch(
        observation_tm1=rows[:, 0, :size],
        a_tm1=rows[:, 0, -4].astype(jnp.int32),
        r_t=jnp.sum(jnp.where(taken, reward * gamma**offsets, 0.0), axis=1),
        discount_t=jnp.prod(jnp.where(taken, gamma, 1.0), axis=1) * (1.0 - last[:, -2]),
        observation_t=last[:, size : 2 * size],
    )


def _below(bits: jax.Array, bound: jax.Array) -> jax.Array:
    """Maps uniform uint32 ``bits`` to int32 in ``[0, bound)``: the high word of ``bits · bound``.

    Lemire 2019 (https://arxiv.org/abs/1805.10941) without the rejection: no value is likelier than
    another by more than ``bound / 2³²``. One draw of 32 bits, where ``randint`` takes two.
    """
    bound = bound.astype(jnp.uint32)
    low, high = bits & 0xFFFF, bits >> 16
    bound_low, bound_high = bound & 0xFFFF, bound >> 16
    middle = high * bound_low + ((low * bound_low) >> 16)
    carry = ((middle & 0xFFFF) + low * bound_high) >> 16
    return (high * bound_high + (middle >> 16) + carry).astype(jnp.int32)
