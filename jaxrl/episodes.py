"""Greedy episodes of a saved policy, in Gymnasium, where it was not trained, or in gymnax."""

import dataclasses
import math

import numpy as np

from jaxrl.errors import InputError
from jaxrl.loader import Policy


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Greedy episodes of a policy."""

    returns: np.ndarray
    """[N]."""
    lengths: np.ndarray
    """[N], steps."""
    limit: int
    """Steps after which an episode is cut off; 0 where there is no such limit."""
    first: np.ndarray
    """[T, O]: what was observed in the first one."""

    def describe(self) -> str:
        """Their mean, spread and share at the limit, in a line."""
        mean, std = self.returns.mean(), self.returns.std()
        error = std / np.sqrt(len(self.returns))
        share = np.mean(self.lengths >= self.limit)
        at_limit = f", at the limit of {self.limit} steps: {share:.0%}" if self.limit else ""
        return (
            f"mean return {mean:.2f} (standard error {error:.2f}), standard deviation {std:.2f}, "
            f"lowest {self.returns.min():.6g}{at_limit}"
        )


def play(policy: Policy, episodes: int, seed: int = 0) -> Episodes:
    """Plays ``episodes`` greedily, side by side, in Gymnasium's environment of the policy's name.

    Raises:
        InputError: Gymnasium has none.
    """
    import gymnasium

    if ":" in policy.env_id:  # a user's own, which Gymnasium would import
        raise InputError(f"Gymnasium has no {policy.env_id}: play in gymnax's.")
    try:
        made = [gymnasium.make(policy.env_id) for _ in range(episodes)]
    except gymnasium.error.Error as error:
        raise InputError(f"Gymnasium has no {policy.env_id}: {error}.") from None
    size, actions = made[0].observation_space.shape or (), getattr(made[0].action_space, "n", None)
    _check(policy, math.prod(size), actions)
    seeds = np.random.SeedSequence(seed).generate_state(episodes)
    observations = np.stack(
        [env.reset(seed=int(s))[0].ravel() for env, s in zip(made, seeds, strict=True)]
    )
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    first, running = [observations[0]], np.arange(episodes)
    while len(running):
        actions = policy.act(observations)
        lengths[running] += 1
        still = []
        for i in running:
            observation, reward, terminated, truncated, _ = made[i].step(int(actions[i]))
            observations[i] = observation.ravel()
            returns[i] += float(reward)
            if not (terminated or truncated):
                still.append(i)
        if 0 in running:
            first.append(observations[0].copy())
        running = np.array(still, int)
    limit = made[0].spec.max_episode_steps if made[0].spec else None
    return Episodes(returns, lengths, limit or 0, np.array(first))


def play_gymnax(policy: Policy, episodes: int, seed: int = 0) -> Episodes:
    """The same in gymnax's environment, on the CPU.

    Raises:
        InputError: gymnax has none.
    """
    import jax  # slow to import

    from jaxrl.dqn.environment import make
    from jaxrl.population.devices import configure

    configure("cpu")  # a policy is small, and the GPU may be training

    env = make(policy.env_id)
    _check(policy, env.observation_size, env.num_actions)
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    key = jax.random.key(seed, impl="threefry2x32")
    observation, state = reset(jax.random.split(key, episodes))
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    running = np.ones(episodes, bool)
    first, t = [np.asarray(observation[0])], 0
    while running.any():
        t += 1
        keys = jax.random.split(jax.random.fold_in(key, t), episodes)
        taken, state = step(keys, state, policy.act(np.asarray(observation)).astype(np.int32))
        returns += np.where(running, np.asarray(taken.reward), 0.0)
        lengths += running
        if running[0]:
            first.append(np.asarray(taken.final_observation[0]))
        running &= ~np.asarray(taken.terminated | taken.truncated)
        observation = taken.observation
    return Episodes(returns, lengths, env.max_episode_steps, np.array(first))


def _check(policy: Policy, size: int, actions: int | None) -> None:
    """Raises ``InputError`` where a policy is not for such observations and actions."""
    its = len(policy.observation_mean), policy.num_actions
    if its != (size, actions):
        raise InputError(
            f"the policy sees {its[0]} values and chooses among {its[1]} actions, and "
            f"{policy.env_id} has {size} and {actions}: it is not for this environment."
        )


BACKENDS = {"gymnasium": play, "gymnax": play_gymnax}
