"""The environment adapter, against Gymnasium step by step."""

import functools
import inspect
import subprocess
import sys

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.dqn import environment
from jaxrl.errors import InputError

# For each environment: the variables of its state, and where a new episode may start.
STATES = {
    "CartPole-v1": (("x", "x_dot", "theta", "theta_dot"), [-0.05] * 4, [0.05] * 4),
    "Acrobot-v1": (
        ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
        [-0.1] * 4,
        [0.1] * 4,
    ),
    "MountainCar-v0": (("position", "velocity"), [-0.6, 0], [-0.4, 0]),
}


def play(env_id, policy, steps):
    """States, observations, actions and time steps of ``steps`` steps with ``policy``."""
    env = environment.make(env_id)

    def step(carry, key):
        state, observation = carry
        action_key, step_key = jax.random.split(key)
        action = policy(action_key, observation)
        timestep, next_state = env.step(step_key, state, action)
        return (next_state, timestep.observation), (state, observation, action, timestep)

    @jax.jit
    def run(key):
        reset_key, steps_key = jax.random.split(key)
        observation, state = env.reset(reset_key)
        keys = jax.random.split(steps_key, steps)
        return jax.lax.scan(step, (state, observation), keys)[1]

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


def assert_steps_like_gymnasium(env_id, policy, steps, atol):
    """Plays, puts Gymnasium into every state on the way, compares; returns the time steps."""
    variables, low, high = STATES[env_id]
    states, observations, actions, timesteps = play(env_id, policy, steps)
    states = np.stack([getattr(states, name) for name in variables], axis=1).astype(float)
    oracle = gymnasium.make(env_id, disable_env_checker=True)  # counts its own time limit
    oracle.reset(seed=0)
    is_start = True
    starts = []
    for t in range(steps):
        if is_start:
            assert np.all((low <= states[t]) & (states[t] <= high)), f"start at step {t}"
            starts.append(tuple(states[t]))
        oracle.unwrapped.state = states[t]
        get_observation = getattr(oracle.unwrapped, "_get_ob", lambda: oracle.unwrapped.state)
        np.testing.assert_allclose(observations[t], get_observation(), atol=atol)

        final_observation, reward, terminated, truncated, _ = oracle.step(actions[t])
        ours = jax.tree.map(lambda x, t=t: x[t], timesteps)
        np.testing.assert_allclose(
            ours.final_observation, final_observation, atol=atol, err_msg=f"step {t}"
        )
        expected = (t, reward, terminated, truncated)
        assert (t, ours.reward, ours.terminated, ours.truncated) == expected
        is_start = terminated or truncated
        if is_start:
            oracle.reset()
        else:
            np.testing.assert_array_equal(ours.observation, ours.final_observation)
    assert len(set(starts)) == len(starts), "two episodes started alike"
    return timesteps


def uniformly(num_actions, key, observation):
    return jax.random.randint(key, (), 0, num_actions)


def balance(key, observation):
    x, x_dot, theta, theta_dot = observation
    return jnp.int32(0.1 * x + 0.2 * x_dot + theta + 0.3 * theta_dot > 0)


def run_off(key, observation):
    """Balances the pole, but with a lean: the cart leaves the track at its right end."""
    _, _, theta, theta_dot = observation
    return jnp.int32(theta - 0.05 + 0.3 * theta_dot > 0)


def swing(key, observation):
    """Pumps energy into the acrobot's second link."""
    return jnp.int32(1 + jnp.sign(observation[5]))


def rock(key, observation):
    """Pushes the car the way that it rolls."""
    return jnp.int32(1 + jnp.where(observation[1] < 0, -1, 1))


def test_cartpole_steps_like_gymnasium_under_random_actions():
    steps = assert_steps_like_gymnasium(
        "CartPole-v1", functools.partial(uniformly, 2), steps=3000, atol=1e-6
    )
    assert np.sum(steps.terminated) > 100
    assert not np.any(steps.truncated)


def test_cartpole_steps_like_gymnasium_up_to_its_time_limit():
    steps = assert_steps_like_gymnasium("CartPole-v1", balance, steps=2600, atol=1e-6)
    assert not np.any(steps.terminated)
    assert list(np.flatnonzero(steps.truncated)) == [499, 999, 1499, 1999, 2499]


def test_cartpole_steps_like_gymnasium_where_the_cart_leaves_the_track():
    steps = assert_steps_like_gymnasium("CartPole-v1", run_off, steps=1500, atol=1e-6)
    last_x = steps.final_observation[steps.terminated][:, 0]
    assert len(last_x) > 3
    assert np.all(last_x > 2.4)


@pytest.mark.parametrize(
    ("policy", "terminations", "truncations"),
    [(functools.partial(uniformly, 3), 0, 2), (swing, 5, 0)],
)
def test_acrobot_steps_like_gymnasium(policy, terminations, truncations):
    steps = assert_steps_like_gymnasium("Acrobot-v1", policy, steps=1010, atol=1e-4)
    assert np.sum(steps.terminated) >= terminations
    assert np.sum(steps.truncated) >= truncations


@pytest.mark.parametrize(
    ("policy", "terminations", "truncations"),
    [(functools.partial(uniformly, 3), 0, 4), (rock, 5, 0)],
)
def test_mountain_car_steps_like_gymnasium(policy, terminations, truncations):
    steps = assert_steps_like_gymnasium("MountainCar-v0", policy, steps=810, atol=1e-6)
    assert np.sum(steps.terminated) >= terminations
    assert np.sum(steps.truncated) >= truncations


def assert_same_type(a, b):
    assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


@pytest.mark.parametrize("env_id", [i for i in gymnax.registered_envs if not i.startswith("MNIST")])
def test_working_lists_the_environments_that_can_be_stepped_in_a_loop(env_id):
    try:
        env = environment.make(env_id)
    except InputError:
        assert env_id not in environment.WORKING
        return
    assert env_id in environment.WORKING

    def loop(key):
        observation, state = env.reset(key)

        def step(state, key):
            timestep, state = env.step(key, state, jnp.int32(0))
            return state, timestep

        last_state, steps = jax.lax.scan(step, state, jax.random.split(key, 3))
        return observation, steps, state, last_state

    observation, steps, state, last_state = jax.eval_shape(loop, jax.random.key(0))
    jax.tree.map(assert_same_type, state, last_state)
    size = env.observation_size
    assert (observation.shape, observation.dtype) == ((size,), jnp.float32)
    for name, shape, dtype in (
        ("observation", (3, size), jnp.float32),
        ("reward", (3,), jnp.float32),
        ("terminated", (3,), bool),
        ("truncated", (3,), bool),
        ("final_observation", (3, size), jnp.float32),
    ):
        assert (getattr(steps, name).shape, getattr(steps, name).dtype) == (shape, dtype)
    assert env.num_actions >= 2
    assert env.max_episode_steps >= 1


def test_working_names_only_registered_environments():
    assert set(environment.WORKING) <= set(gymnax.registered_envs)


@pytest.mark.parametrize(
    "env_id", ["Pendulum-v1", "MountainCarContinuous-v0", "FrozenLake-misc", "Cartpole-v1", ""]
)
def test_an_environment_that_does_not_work_is_refused_with_what_does(env_id):
    with pytest.raises(InputError) as error:
        environment.make(env_id)
    assert repr(env_id) in str(error.value)
    for working in environment.WORKING:
        assert working in str(error.value)


def test_a_misspelt_environment_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'CartPole-v1'"):
        environment.make("Cartpole-v1")


def test_observation_statistics_are_the_same_every_time():
    first = environment.observation_statistics(environment.make("CartPole-v1"))
    second = environment.observation_statistics(environment.make("CartPole-v1"))
    np.testing.assert_array_equal(first, second)


def test_observation_statistics_are_those_of_ten_thousand_random_steps():
    default = inspect.signature(environment.observation_statistics).parameters["steps"].default
    assert default == 10_000
    mean, std = environment.observation_statistics(environment.make("CartPole-v1"))
    oracle = gymnasium.make("CartPole-v1", disable_env_checker=True)
    oracle.action_space.seed(0)
    observation, _ = oracle.reset(seed=0)
    observations = []
    for _ in range(20_000):
        observations.append(observation)
        observation, _, terminated, truncated, _ = oracle.step(oracle.action_space.sample())
        if terminated or truncated:
            observation, _ = oracle.reset()
    expected = np.std(observations, axis=0)
    # About 450 episodes in one estimate and 900 in the other: errors of some 6 % of a deviation.
    np.testing.assert_allclose(std, expected, rtol=0.2)
    np.testing.assert_allclose(mean / expected, np.mean(observations, axis=0) / expected, atol=0.25)


def test_a_constant_observation_has_deviation_one():
    mean, std = environment.observation_statistics(environment.make("SimpleBandit-bsuite"), 100)
    np.testing.assert_array_equal(mean, [1])
    np.testing.assert_array_equal(std, [1])


def test_importing_the_command_leaves_the_choice_of_a_device_open():
    # JAX refuses this option, as it ignores jax_platforms and XLA_FLAGS, once a backend has started.
    code = "import jax, jaxrl.sweep; jax.config.update('jax_num_cpu_devices', 2)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
