"""Probe environments: each so small that its Q-values are known, each isolating one failure.

Every tile trains four agents that differ in what must not matter: double Q-learning, soft target
updates, the squared error, clipped gradients, normalised observations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces

from jaxrl.dqn.environment import Environment
from jaxrl.dqn.hyperparameters import Cadence, Shape
from jaxrl.population.program import Programs
from jaxrl.population.tile import TileFunctions

GAMMA = 0.5
TOLERANCE = 1e-3


@struct.dataclass
class State:
    x: jax.Array
    """float32, what the environment shows, in most of them."""
    time: jax.Array


class Probe(gymnax_environment.Environment):
    """Two actions, ±1 drawn at the start, one step. Probes override what is different in them."""

    num_actions = 2
    size = 1
    length = 1

    def start(self, key):
        return jax.random.rademacher(key, (), jnp.float32)

    def show(self, state):
        return state.x[None]

    def reward(self, state, action):
        raise NotImplementedError

    def move(self, state):
        return state.x

    def reset_env(self, key, params):
        state = State(x=self.start(key), time=jnp.int32(0))
        return self.show(state), state

    def step_env(self, key, state, action, params):
        reward = jnp.float32(self.reward(state, action))
        state = State(x=self.move(state), time=state.time + 1)
        terminated = state.time >= self.length
        return self.show(state), state, reward, terminated, {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(-1, 1, (self.size,), jnp.float32)


def train(
    env,
    make_hyper,
    *,
    time_limit=100,
    hidden_sizes=(),
    dueling=False,
    n_step=1,
    steps=1500,
    **changes,
):
    """Trains a tile on random actions; its Q-values of raw observations, and what it evaluates."""
    params = gymnax_environment.EnvParams(max_steps_in_episode=time_limit)
    adapted = Environment(type(env).__name__, env, params)
    shape = Shape(hidden_sizes, dueling, minibatch_rows=32, n_step=n_step)
    functions = TileFunctions(shape, adapted, 4, capacity=500, eval_episodes=5, final_episodes=1)
    programs = Programs(functions, jax.devices()[0])
    common = {
        "gamma": GAMMA,
        "learning_rate": 0.02,
        "buffer_size": 500,
        "target_update_interval": 20,
        "learning_starts": 32,
        "epsilon_start": 1,
        "epsilon_end": 1,
        "observation_mean": np.zeros(env.size),
        "observation_std": np.ones(env.size),
    }
    variants = [
        {},
        {"double_q": True, "max_grad_norm": 0.5},
        {"tau": 0.2, "target_update_interval": 3, "buffer_size": 200},
        {
            "huber_delta": np.inf,
            "max_grad_norm": np.inf,
            "observation_mean": np.full(env.size, 0.3),
            "observation_std": np.full(env.size, 0.7),
        },
    ]
    agents = [make_hyper(**{**common, **variant, **changes}) for variant in variants]
    hyper = jax.tree.map(lambda *x: np.stack(x), *agents)
    seeds = np.arange(4, dtype=np.uint32)
    programs.compile("training")
    programs.compile("evaluation")
    tile = programs.advance(programs.start(seeds), seeds, hyper, Cadence(2, 2), 0, steps)
    tile, evaluation = programs.evaluate(tile, seeds, hyper, np.int32(steps))
    assert not np.any(evaluation.diverged)

    def q_values(observation):
        x = (jnp.asarray(observation, jnp.float32) - hyper.observation_mean) / hyper.observation_std
        return np.asarray(jax.vmap(functions.network.apply)(tile.learner.params, x))

    return q_values, evaluation


def assert_all_close(q, expected):
    """Compares the Q-values ``[P, A]`` of a tile with those of each action, or of every one."""
    expected = np.broadcast_to(expected, q.shape)
    np.testing.assert_allclose(q, expected, atol=TOLERANCE)


class RewardOne(Probe):
    def start(self, key):
        return jnp.float32(1)

    def reward(self, state, action):
        return 1


def test_a_single_step_of_reward_1_is_worth_1(make_hyper):
    # A window of one, the newest, is enough; the ring's other rows are still empty.
    q, _ = train(RewardOne(), make_hyper, buffer_size=1, steps=800)
    assert_all_close(q([1]), 1)


class RewardIsObservation(Probe):
    def reward(self, state, action):
        return state.x


def test_the_value_follows_the_observation(make_hyper):
    q, _ = train(RewardIsObservation(), make_hyper)
    assert_all_close(q([-1]), -1)
    assert_all_close(q([1]), 1)


class RewardAtTheEnd(Probe):
    length = 2

    def start(self, key):
        return jnp.float32(-1)

    def move(self, state):
        return jnp.float32(1)

    def reward(self, state, action):
        return state.time == 1


def test_a_reward_one_step_ahead_is_discounted_once(make_hyper):
    q, _ = train(RewardAtTheEnd(), make_hyper)
    assert_all_close(q([-1]), GAMMA)
    assert_all_close(q([1]), 1)


class RewardIsAction(RewardOne):
    def reward(self, state, action):
        return 2 * action - 1


def test_the_better_action_is_found(make_hyper):
    q, evaluation = train(RewardIsAction(), make_hyper, dueling=True)
    assert_all_close(q([1]), [-1, 1])
    np.testing.assert_array_equal(evaluation.eval_returns, 1)
    assert np.all(np.abs(evaluation.train_return_sum) < 40)  # of 100 random episodes


class RewardIsMatch(Probe):
    def reward(self, state, action):
        return state.x * (2 * action - 1)


def test_the_better_action_is_found_for_each_observation(make_hyper):
    q, evaluation = train(RewardIsMatch(), make_hyper, hidden_sizes=(16,))
    assert_all_close(q([-1]), [1, -1])
    assert_all_close(q([1]), [-1, 1])
    np.testing.assert_array_equal(evaluation.eval_returns, 1)


class Endless(RewardOne):
    length = 10**6


def test_values_bootstrap_through_a_time_limit(make_hyper):
    q, evaluation = train(Endless(), make_hyper, time_limit=3)
    assert_all_close(q([1]), 1 / (1 - GAMMA))
    np.testing.assert_array_equal(evaluation.eval_returns, 3)
    np.testing.assert_array_equal(evaluation.train_return_sum, 300)


def test_three_step_returns_bootstrap_through_a_time_limit(make_hyper):
    q, _ = train(Endless(), make_hyper, time_limit=4, n_step=3)
    assert_all_close(q([1]), 1 / (1 - GAMMA))


class Rise(Probe):
    """Starts low or high and is high ever after, where the reward is: a value that bootstraps from
    the next episode's first observation instead of this one's last is too small."""

    length = 10**6

    def move(self, state):
        return jnp.float32(1)

    def reward(self, state, action):
        return state.x > 0


def test_a_time_limit_bootstraps_from_the_final_observation(make_hyper):
    q, _ = train(Rise(), make_hyper, time_limit=2)
    assert_all_close(q([1]), 1 / (1 - GAMMA))
    assert_all_close(q([-1]), GAMMA / (1 - GAMMA))


class Chain(RewardOne):
    """Five states in a row, each a reward of 1, and then the end. The state is shown one-hot."""

    size = 5
    length = 5

    def show(self, state):
        return jax.nn.one_hot(state.time, self.size)


def assert_chain_is_known(q):
    for time, observation in enumerate(np.eye(5)):
        rest = 5 - time
        assert_all_close(q(observation), (1 - GAMMA**rest) / (1 - GAMMA))


def test_values_do_not_bootstrap_through_a_termination(make_hyper):
    q, evaluation = train(Chain(), make_hyper, hidden_sizes=(16,), steps=2000)
    assert_chain_is_known(q)
    np.testing.assert_array_equal(evaluation.eval_returns, 5)


def test_three_step_returns_have_the_same_values(make_hyper):
    q, _ = train(Chain(), make_hyper, hidden_sizes=(16,), n_step=3, steps=2000)
    assert_chain_is_known(q)
