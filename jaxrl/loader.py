"""Acts with a policy that jaxrl has saved. It needs numpy and safetensors, and nothing else of jaxrl: a
copy of this file lies beside every saved policy.

    from loader import load

    policy = load("runs/NAME/best/1")
    action = policy.act(observation)

A policy is a directory with ``policy.json`` (environment, network, observation statistics, the
configuration and seed that it was trained with) and ``params.safetensors`` (arrays, and nothing that
runs).
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

DESCRIPTION = "policy.json"
PARAMS = "params.safetensors"


@dataclasses.dataclass(frozen=True)
class Policy:
    """A greedy policy: a multilayer perceptron with ReLU over normalised observations.

    Raises:
        ValueError: its parts do not fit together.
    """

    env_id: str
    num_actions: int
    configuration: Mapping[str, Any]
    seed: int
    observation_mean: np.ndarray
    """[O]."""
    observation_std: np.ndarray
    """[O]."""
    params: Mapping[str, np.ndarray]
    """Of each layer ``NAME.kernel`` [inputs, outputs] and ``NAME.bias`` [outputs]: ``hidden_0``,
    ``hidden_1``, …, then ``q``, or where it is dueling ``value`` and ``advantage``."""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What it reached in its sweep."""
    network: str | None = None
    """The flax module that the parameters are for, if that is the user's own."""

    def __post_init__(self) -> None:
        if not isinstance(self.env_id, str):
            raise ValueError(f"env is {self.env_id!r}")
        if self.observation_mean.ndim != 1:
            raise ValueError(f"observation_mean has shape {self.observation_mean.shape}")
        if self.observation_std.shape != self.observation_mean.shape:
            raise ValueError("observation_std and observation_mean differ in shape")
        if self.network is not None:
            return
        found = {name: (array.shape, array.dtype) for name, array in self.params.items()}
        if found != {name: (shape, np.float32) for name, shape in self._shapes().items()}:
            raise ValueError("the parameters are not those of the described network")

    def q_values(self, observations: Any) -> np.ndarray:
        """Action values ``[..., A]`` of ``observations [..., O]``."""
        if self.network is not None:
            raise ValueError(
                f"it acts with {self.network}, which is not here: jaxrl.load_policy can"
            )
        x = self.normalise(observations)
        for index in range(len(self.configuration["hidden_sizes"])):
            x = np.maximum(self._layer(f"hidden_{index}", x), 0)
        if not self.configuration["dueling"]:
            return self._layer("q", x)
        advantage = self._layer("advantage", x)
        return self._layer("value", x) + advantage - advantage.mean(axis=-1, keepdims=True)

    def normalise(self, observations: Any) -> np.ndarray:
        """``observations [..., O]`` as the network sees them."""
        return (np.asarray(observations, np.float32) - self.observation_mean) / self.observation_std

    def act(self, observations: Any) -> np.ndarray:
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
            **({} if self.network is None else {"network": self.network}),
        }
        return {
            DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(),
            PARAMS: safetensors.numpy.save(
                {n: np.ascontiguousarray(a) for n, a in self.params.items()}
            ),
            "loader.py": pathlib.Path(__file__).read_bytes(),
        }

    def write(self, directory: pathlib.Path) -> None:
        """Writes them to a new directory."""
        directory.mkdir()
        for name, content in self.files().items():
            (directory / name).write_bytes(content)

    def _layer(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.params[f"{name}.kernel"] + self.params[f"{name}.bias"]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, by name."""
        widths = [len(self.observation_mean), *self.configuration["hidden_sizes"]]
        layers = {f"hidden_{i}": shape for i, shape in enumerate(itertools.pairwise(widths))}
        heads = {"q": self.num_actions}
        if self.configuration["dueling"]:
            heads = {"value": 1, "advantage": self.num_actions}
        layers |= {name: (widths[-1], outputs) for name, outputs in heads.items()}
        shapes: dict[str, tuple[int, ...]] = {f"{name}.kernel": s for name, s in layers.items()}
        return shapes | {f"{name}.bias": s[1:] for name, s in layers.items()}


def load(directory: str | pathlib.Path) -> Policy:
    """The policy that was saved in ``directory``.

    Raises:
        Exception: of any kind, where it is damaged or something else.
    """
    path = pathlib.Path(directory)
    description = json.loads((path / DESCRIPTION).read_text("utf-8"))
    return Policy(
        env_id=description["env"],
        num_actions=description["num_actions"],
        configuration=description["configuration"],
        seed=description["seed"],
        observation_mean=np.array(description["observation_mean"], np.float32),
        observation_std=np.array(description["observation_std"], np.float32),
        params=safetensors.numpy.load((path / PARAMS).read_bytes()),
        scores=dict(description["scores"]),
        network=description.get("network"),
    )
