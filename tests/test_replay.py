"""Replay against a deque, n-step sequences against a loop, the draw of indices against integers."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jaxrl.dqn import replay
from jaxrl.dqn.agent import REPLAY, agent_key
from jaxrl.dqn.environment import TimeStep


@functools.partial(jax.jit, static_argnames=("batch_size", "n_step"))
def sample(key, ring, t, buffer_size, gamma, *, batch_size, n_step):
    choice = replay.choose(
        key, t, buffer_size, capacity=ring.shape[0], rows=batch_size, n_step=n_step
    )
    return replay.read(ring, choice, gamma)


write = jax.jit(replay.write)

CAPACITIES = st.sampled_from([1, 2, 5, 8])
"""Few, since each is a shape to compile."""


def transition(agent, t, reward=0.0, terminated=False, truncated=False):
    """The step ``t`` of ``agent``: both can be read off its observations."""
    step = TimeStep(
        observation=jnp.array([-1.0, -1.0]),
        reward=jnp.float32(reward),
        terminated=jnp.bool_(terminated),
        truncated=jnp.bool_(truncated),
        final_observation=jnp.array([t + 0.5, agent]),
    )
    return replay.pack(jnp.array([t, agent], jnp.float32), jnp.int32(t % 3), step)


def filled_ring(capacity, steps):
    """A ring ``[P, C, W]`` after the rows of each step, ``[P, W]``, were written."""
    ring = jnp.full((len(steps[0]), capacity, len(steps[0][0])), jnp.nan)
    for t, rows in enumerate(steps):
        ring = write(ring, jnp.stack(rows), jnp.int32(t))
    return ring


def sampled(ring, t, window, gamma=0.9, *, batch_size=400, n_step=1, seed=0):
    return jax.tree.map(
        np.asarray,
        sample(
            jax.random.key(seed),
            ring,
            jnp.int32(t),
            jnp.int32(window),
            jnp.float32(gamma),
            batch_size=batch_size,
            n_step=n_step,
        ),
    )


@settings(max_examples=60)
@given(CAPACITIES, st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(1, 25))
@example(capacity=8, windows=(12, 1), steps=8)  # larger than what is stored
@example(capacity=5, windows=(5, 3), steps=24)  # wrapped around, two windows
@example(capacity=5, windows=(5, 2), steps=1)
def test_samples_are_exactly_the_last_transitions_of_each_agents_own_window(
    capacity, windows, steps
):
    assume(min(max(windows), steps) <= capacity)
    ring = filled_ring(capacity, [[transition(i, t) for i in range(2)] for t in range(steps)])
    for agent, window in enumerate(windows):
        stored = collections.deque(maxlen=window)
        stored.extend(range(steps))
        batch = sampled(ring[agent], steps, window)
        assert set(batch.observation_tm1[:, 0]) == set(stored)  # 400 draws miss none of 8 or fewer
        assert set(batch.observation_tm1[:, 1]) == {agent}


def test_every_transition_of_a_window_is_as_likely_as_any_other():
    ring = filled_ring(8, [[transition(0, t)] for t in range(13)])
    batch = sampled(ring[0], 13, 7, batch_size=70_000)
    counts = np.bincount(batch.observation_tm1[:, 0].astype(int))[6:]
    assert len(counts) == 7
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_a_key_fixes_the_sample_and_another_key_changes_it():
    ring = filled_ring(8, [[transition(0, t)] for t in range(8)])
    first, again, other = (sampled(ring[0], 8, 8, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.observation_tm1, again.observation_tm1)
    assert np.any(first.observation_tm1 != other.observation_tm1)


Transition = collections.namedtuple("Transition", "reward terminated truncated")


def n_step_of(transitions, start, n, gamma):
    """Return, discount and index of the last transition of the sequence from ``start``."""
    total = 0.0
    discount = 1.0
    for index in range(start, min(start + n, len(transitions))):
        total += discount * transitions[index].reward
        discount *= gamma
        if transitions[index].terminated:
            return total, 0.0, index
        if transitions[index].truncated:
            break
    return total, discount, index


TRANSITIONS = st.lists(
    st.builds(
        Transition,
        reward=st.integers(-8, 8),
        terminated=st.sampled_from([False, False, True]),
        truncated=st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=100)
@given(TRANSITIONS, CAPACITIES, st.integers(1, 12), st.integers(1, 5), st.sampled_from([0, 0.5, 1]))
def test_a_sequence_ends_with_its_episode_or_at_the_newest_transition(
    transitions, capacity, window, n_step, gamma
):
    steps = len(transitions)
    assume(min(window, steps) <= capacity)
    ring = filled_ring(capacity, [[transition(0, t, *x)] for t, x in enumerate(transitions)])
    batch = sampled(ring[0], steps, window, gamma, n_step=n_step)
    starts = batch.observation_tm1[:, 0].astype(int)
    assert set(starts) == set(range(max(0, steps - window), steps))
    for row, start in enumerate(starts):
        total, discount, last = n_step_of(transitions, start, n_step, gamma)
        assert batch.a_tm1[row] == start % 3
        assert batch.r_t[row] == pytest.approx(total, abs=1e-5)
        assert batch.discount_t[row] == pytest.approx(discount, abs=1e-6)
        assert batch.observation_t[row, 0] == last + 0.5


@pytest.mark.parametrize(
    ("start", "total", "discount", "last"),
    [
        (0, 1 + 0.5 * 2 + 0.25 * 4, 0.125, 2),  # three whole steps
        (2, 4 + 0.5 * 8, 0.25, 3),  # the time limit: bootstraps from the final observation
        (3, 8, 0.5, 3),
        (4, 16 + 0.5 * 32, 0, 5),  # a terminal state: nothing follows
        (6, 64 + 0.5 * 128, 0.25, 7),  # the newest transition: bootstraps early
        (7, 128, 0.5, 7),
    ],
)
def test_three_steps_by_hand(start, total, discount, last):
    transitions = [
        transition(0, t, reward=2.0**t, truncated=t == 3, terminated=t == 5) for t in range(8)
    ]
    batch = sampled(filled_ring(8, [[row] for row in transitions])[0], 8, 8, 0.5, n_step=3)
    row = list(batch.observation_tm1[:, 0]).index(start)
    assert batch.r_t[row] == total
    assert batch.discount_t[row] == discount
    assert batch.observation_t[row, 0] == last + 0.5


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**31 - 1))
@example(2**32 - 1, 2**31 - 1)
@example(2**32 - 1, 1)
@example(0, 2**31 - 1)
@example(0x0000FFFF, 0x00010001)
@example(0xFFFF0000, 0x7FFF0001)
def test_an_index_is_the_high_word_of_bits_times_bound(bits, bound):
    index = replay._below(jnp.array([bits], jnp.uint32), jnp.int32(bound))
    assert index.dtype == jnp.int32
    assert int(index[0]) == bits * bound >> 32


def test_an_index_is_the_high_word_for_many_bits_at_once():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    for bound in (1, 2, 3, 2**16 - 1, 2**16, 2**16 + 1, 10**6, 2**30 + 12345, 2**31 - 1):
        expected = bits.astype(np.uint64) * np.uint64(bound) >> np.uint64(32)
        indices = replay._below(jnp.asarray(bits), jnp.int32(bound))
        np.testing.assert_array_equal(indices, expected.astype(np.int32))


@pytest.mark.parametrize("bound", [2, 7, 1000, 2**31 - 1])
def test_indices_are_uniform(bound):
    bits = jax.random.bits(jax.random.key(0), (100_000,))
    indices = np.asarray(replay._below(bits, jnp.int32(bound)))
    bins = min(bound, 50)
    counts = np.bincount(indices.astype(np.int64) * bins // bound, minlength=bins)
    assert len(counts) == bins
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("terminated", "truncated"), itertools.product([False, True], [False, True])
)
def test_a_packed_transition_comes_back_whole(terminated, truncated):
    observation, final = np.array([1.5, -2.25, 1e-20]), np.array([3e8, 0.1, -0.0])
    step = TimeStep(
        observation=jnp.zeros(3),
        reward=jnp.float32(-0.3),
        terminated=jnp.bool_(terminated),
        truncated=jnp.bool_(truncated),
        final_observation=jnp.asarray(final, jnp.float32),
    )
    row = replay.pack(jnp.asarray(observation, jnp.float32), jnp.int32(17), step)
    assert row.shape == (replay.row_size(3),)
    assert row.dtype == jnp.float32
    batch = sampled(filled_ring(1, [[row]])[0], 1, 1, gamma=0.75, batch_size=2)
    for index in range(2):
        np.testing.assert_array_equal(batch.observation_tm1[index], observation.astype(np.float32))
        np.testing.assert_array_equal(batch.observation_t[index], final.astype(np.float32))
        assert batch.a_tm1[index] == 17
        assert batch.r_t[index] == np.float32(-0.3)
        assert batch.discount_t[index] == (0 if terminated else 0.75)
    assert batch.a_tm1.dtype == np.int32


def test_a_write_changes_one_row_of_each_agent():
    ring = jnp.arange(2 * 5 * 3, dtype=jnp.float32).reshape(2, 5, 3)
    rows = jnp.array([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]])
    expected = np.array(ring)
    expected[:, 12 % 5] = rows
    np.testing.assert_array_equal(write(ring, rows, jnp.int32(12)), expected)


def test_a_write_is_one_slice_update_and_no_scatter():
    ring, rows = jnp.zeros((4, 100, 12)), jnp.zeros((4, 12))
    jaxpr = str(jax.make_jaxpr(replay.write)(ring, rows, jnp.int32(7)))
    assert jaxpr.count("dynamic_update_slice") == 1
    assert "scatter" not in jaxpr


def test_a_minibatch_begins_the_same_whatever_the_number_of_rows():
    def positions(rows):
        return replay.choose(
            agent_key(jnp.uint32(7), REPLAY),
            jnp.int32(900),
            jnp.int32(500),
            capacity=1000,
            rows=rows,
            n_step=1,
        ).positions

    assert (positions(128)[:100] == positions(100)).all()
