"""A trained policy on disk: parameters, and what is needed to act with them.

A policy is a directory with ``policy.json`` (environment, network, observation statistics, the
configuration and seed that it was trained with) and ``params.msgpack`` (flax's format: arrays and
nothing that runs).
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import serialization

from jaxrl.dqn.networks import QNetwork
from jaxrl.errors import InputError
from jaxrl.search.parameters import check_seed
from jaxrl.search.schedule import to_agent, to_values

PARAMS = "params.msgpack"
DESCRIPTION = "policy.json"


@dataclasses.dataclass(frozen=True)
class Policy:
    """A greedy policy."""

    env_id: str
    num_actions: int
    configuration: Mapping[str, Any]
    seed: int
    observation_mean: np.ndarray
    """[O]."""
    observation_std: np.ndarray
    """[O]."""
    params: Any
    """A flax variable tree of :class:`QNetwork`."""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What it reached in its sweep."""

    @property
    def network(self) -> QNetwork:
        """The network that ``params`` belong to."""
        hidden_sizes = tuple(self.configuration["hidden_sizes"])
        return QNetwork(self.num_actions, hidden_sizes, self.configuration["dueling"])

    def q_values(self, observations: np.ndarray) -> np.ndarray:
        """Action values ``[..., A]`` of ``observations [..., O]``."""
        normalised = (np.asarray(observations, np.float32) - self.observation_mean) / (
            self.observation_std
        )
        return np.asarray(self.network.apply(self.params, normalised))

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Greedy actions ``[...]`` for ``observations [..., O]``."""
        return np.argmax(self.q_values(observations), axis=-1)

    def files(self) -> dict[str, bytes]:
        """The files of the policy, by name."""
        description = {
            "env": self.env_id,
            "num_actions": self.num_actions,
            "configuration": dict(self.configuration),
            "seed": self.seed,
            "observation_mean": self.observation_mean.tolist(),
            "observation_std": self.observation_std.tolist(),
            "scores": dict(self.scores),
        }
        return {
            DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(),
            PARAMS: serialization.to_bytes(self.params),
        }


def load_policy(directory: str | pathlib.Path) -> Policy:
    """The policy that a sweep saved in ``directory`` (``RUN_DIR/best/1``, say).

    Raises:
        InputError: no policy is there, or its files are damaged.
    """
    path = pathlib.Path(directory)
    try:
        description = json.loads((path / DESCRIPTION).read_text("utf-8"))
        params = serialization.msgpack_restore((path / PARAMS).read_bytes())
        agent = to_agent(description["configuration"], check_seed(description["seed"]), 1)
        policy = Policy(
            env_id=description["env"],
            num_actions=description["num_actions"],
            configuration=to_values(agent),
            seed=agent.seed,
            observation_mean=np.array(description["observation_mean"], np.float32),
            observation_std=np.array(description["observation_std"], np.float32),
            params=jax.tree.map(np.asarray, params),
            scores=dict(description["scores"]),
        )
        _check(policy)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"no usable policy in {path} ({reason}).") from None
    return policy


def _check(policy: Policy) -> None:
    """Raises ``ValueError`` where parts of a policy do not fit together."""
    if not isinstance(policy.env_id, str):
        raise ValueError(f"env is {policy.env_id!r}")
    if policy.observation_mean.ndim != 1:
        raise ValueError(f"observation_mean has shape {policy.observation_mean.shape}")
    if policy.observation_std.shape != policy.observation_mean.shape:
        raise ValueError("observation_std and observation_mean differ in shape")
    expected = jax.eval_shape(policy.network.init, jax.random.key(0), policy.observation_mean)
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        for tree in (expected, policy.params)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError("the parameters are not those of the described network")
