"""Searches as the hands-on-rl course does: Optuna's TPE, one Stable-Baselines3 DQN after another.

One process on one core, whose own processor time is the clock, so that a busy machine does not slow
it. Each trial trains once, is evaluated along the way as a sweep's agents are, and scores the mean
return of its best policy over fresh episodes. Needs stable-baselines3 (``pip install jaxrl[bench]``);
see ``benchmarks/README.md``.
"""

import argparse
import dataclasses
import json
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
import optuna
import stable_baselines3
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from jaxrl.benchmark.peers.sb3_dqn import build, normalised
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.search.parameters import Choice, Varying
from jaxrl.search.space import Space, load_space


class BestPolicy(BaseCallback):
    """Keeps the parameters with the highest mean return of ``episodes`` greedy ones, every so often."""

    def __init__(self, env: VecEnv, every: int, episodes: int) -> None:
        super().__init__()
        self._env, self._every, self._episodes = env, every, episodes
        self._best = -np.inf
        self.parameters: dict[str, torch.Tensor] = {}

    def _on_step(self) -> bool:
        if self.n_calls % self._every == 0:
            mean, _ = evaluate_policy(self.model, self._env, self._episodes, warn=False)
            if mean > self._best:
                self._best = mean
                state = self.model.policy.state_dict()
                self.parameters = {name: value.clone() for name, value in state.items()}
        return True


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """The values that a trial proposes."""

    def draw(name: str, parameter: Varying) -> Any:
        if isinstance(parameter, Choice):
            which = trial.suggest_categorical(name, range(parameter.levels))
            return parameter.at((which + 0.5) / parameter.levels)
        return parameter.at(trial.suggest_float(name, 0, 1))

    return space.build(draw)


def statistics(env_id: str, steps: int = 10_000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of observations under random play."""
    env = gymnasium.make(env_id)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    seen = []
    for _ in range(steps):
        seen.append(observation)
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()
    return np.mean(seen, axis=0).tolist(), np.std(seen, axis=0).tolist()


def train(values: dict[str, Any], args: argparse.Namespace) -> float:
    """The mean return of the best policy along the way, over fresh episodes."""
    seed = values.pop("seed", args.seed)
    configuration = dataclasses.asdict(Configuration.create(values, args.steps))
    configuration["hidden_sizes"] = list(configuration["hidden_sizes"])
    if configuration["normalize_observations"]:
        configuration["observation_mean"], configuration["observation_std"] = args.statistics
    model: DQN = build(configuration, args.steps, seed, args.env)
    episodes = args.eval_episodes
    envs = DummyVecEnv([lambda: normalised(args.env, configuration)] * episodes)
    envs.seed(seed + 1)
    best = BestPolicy(envs, args.steps // 20, episodes)
    model.learn(args.steps, callback=best)
    model.policy.load_state_dict(best.parameters)
    mean, _ = evaluate_policy(model, envs, args.final_episodes, warn=False)
    return float(mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space")
    parser.add_argument("out", help="JSON file to write")
    parser.add_argument("--seconds", type=float, required=True, help="of processor time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--eval-episodes", type=int, default=10)
    parser.add_argument("--final-episodes", type=int, default=100)
    parser.add_argument("--env", default="CartPole-v1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    args.statistics = statistics(args.env)
    space = load_space(args.space)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=args.seed)
    )
    versions = {"stable_baselines3": stable_baselines3.__version__, "optuna": optuna.__version__}
    result: dict[str, Any] = {**versions, "seed": args.seed, "trials": []}
    began = time.process_time()
    while time.process_time() - began < args.seconds:
        trial = study.ask()
        values = suggest(trial, space)
        score = train(dict(values), args)
        study.tell(trial, score)
        spent = time.process_time() - began
        result["trials"].append({"values": values, "score": score, "seconds": spent})
        print(f"{spent:.0f} s: {score:.1f}", flush=True)
        with open(args.out + ".part", "w") as file:
            json.dump(result, file, indent=1)
        os.replace(args.out + ".part", args.out)


if __name__ == "__main__":
    main()
