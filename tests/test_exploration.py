"""Epsilon-greedy exploration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.dqn.exploration import choose_action, epsilon

DRAWS = 20_000


def schedule(start, end, decay_steps, t):
    if t >= decay_steps:
        return end
    return start + (end - start) * t / decay_steps


@pytest.mark.parametrize("decay_steps", [1, 10, 1000, 10_000_000])
@pytest.mark.parametrize(
    ("start", "end"), [(1, 0.05), (1, 0), (0, 1), (0.1, 0.9), (0.3, 0.3), (0, 0), (1, 1)]
)
def test_epsilon_goes_linearly_from_start_to_end_and_stays(start, end, decay_steps, make_hyper):
    hyper = make_hyper(epsilon_start=start, epsilon_end=end, epsilon_decay_steps=decay_steps)
    times = {0, 1, decay_steps // 3, decay_steps - 1, decay_steps, decay_steps + 1, 2**31 - 1}
    for t in times:
        expected = schedule(start, end, decay_steps, t)
        assert epsilon(hyper, jnp.int32(t)) == pytest.approx(expected, abs=1e-6)


def test_epsilon_without_a_decay_is_at_its_end_from_the_second_step(make_hyper):
    hyper = make_hyper(epsilon_start=0.8, epsilon_end=0.2, epsilon_decay_steps=0)
    values = [float(epsilon(hyper, jnp.int32(t))) for t in range(4)]
    np.testing.assert_allclose(values, [0.8, 0.2, 0.2, 0.2], rtol=1e-6)


def test_epsilon_decays_from_step_0_whatever_the_warm_up(make_hyper):
    hyper = make_hyper(
        epsilon_start=1, epsilon_end=0, epsilon_decay_steps=100, learning_starts=1000
    )
    assert epsilon(hyper, jnp.int32(50)) == pytest.approx(0.5)


def actions(q, hyper, t):
    """The actions of step ``t`` on many keys."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    choose = jax.vmap(choose_action, in_axes=(0, None, None, None))
    return choose(keys, jnp.asarray(q, jnp.float32), hyper, jnp.int32(t))


@pytest.mark.parametrize("t", [0, 99])
@pytest.mark.parametrize("num_actions", [1, 2, 3, 7])
def test_warm_up_actions_are_uniform_even_where_epsilon_is_0(num_actions, t, make_hyper):
    hyper = make_hyper(epsilon_start=0, epsilon_end=0, learning_starts=100)
    counts = np.bincount(actions(np.arange(num_actions), hyper, t), minlength=num_actions)
    assert len(counts) == num_actions
    if num_actions > 1:
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_actions_are_greedy_after_the_warm_up_where_epsilon_is_0(make_hyper):
    hyper = make_hyper(epsilon_start=0, epsilon_end=0, learning_starts=100)
    chosen = actions([-1, 3, 2, 2.9], hyper, 100)
    assert chosen.dtype == jnp.int32
    assert np.all(chosen == 1)


def test_actions_are_greedy_after_the_warm_up_where_epsilon_has_decayed_to_0(make_hyper):
    hyper = make_hyper(epsilon_start=0.7, epsilon_end=0, epsilon_decay_steps=200, learning_starts=0)
    assert np.all(actions([0, 0, 1], hyper, 200) == 2)
    assert np.any(actions([0, 0, 1], hyper, 199) != 2)


@pytest.mark.parametrize("value", [0.01, 0.3, 0.9, 1])
def test_a_fraction_epsilon_of_actions_is_uniform(value, make_hyper):
    hyper = make_hyper(epsilon_start=value, epsilon_end=value, learning_starts=0)
    counts = np.bincount(actions([0, 1, 0, 0, 0], hyper, 5), minlength=5)
    assert len(counts) == 5
    expected = np.full(5, value / 5)
    expected[1] += 1 - value
    assert scipy.stats.chisquare(counts, DRAWS * expected).pvalue > 1e-3
