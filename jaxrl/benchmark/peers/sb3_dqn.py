"""Trains configurations with Stable-Baselines3's DQN, one process, one core, one after another.

Needs stable-baselines3 (``pip install jaxrl[bench]``). Reads and writes JSON; see
``benchmarks/README.md``.
"""

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3 import DQN


def build(configuration: dict, steps: int, seed: int, env_id: str) -> DQN:
    """An SB3 DQN with the configuration's values under SB3's names."""
    policy = {"net_arch": configuration["hidden_sizes"]}
    return DQN(
        "MlpPolicy",
        normalised(env_id, configuration),
        learning_rate=configuration["learning_rate"],
        buffer_size=configuration["buffer_size"],
        learning_starts=configuration["learning_starts"],
        batch_size=configuration["batch_size"],
        gamma=configuration["gamma"],
        train_freq=configuration["train_freq"],
        gradient_steps=configuration["gradient_steps"],
        target_update_interval=configuration["target_update_interval"],
        exploration_fraction=configuration["epsilon_decay_steps"] / steps,
        exploration_initial_eps=configuration["epsilon_start"],
        exploration_final_eps=configuration["epsilon_end"],
        max_grad_norm=configuration["max_grad_norm"],
        policy_kwargs=policy,
        seed=seed,
        device="cpu",
    )


def normalised(env_id: str, configuration: dict) -> gymnasium.Env:
    """An environment whose observations are standardised where the configuration says how."""
    env = gymnasium.make(env_id)
    mean, std = configuration.get("observation_mean"), configuration.get("observation_std")
    if mean is None:
        return env
    return gymnasium.wrappers.TransformObservation(
        env, lambda x: ((x - np.array(mean)) / np.array(std)).astype(np.float32), None
    )


def greedy_returns(model: DQN, episodes: int, seed: int) -> list[float]:
    """Undiscounted returns of greedy episodes in a fresh environment."""
    env = model.get_env().envs[0]
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed * 10_000 + episode)
        total, done = 0.0, False
        while not done:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(int(action))
            total, done = total + reward, terminated or truncated
        returns.append(float(total))
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="JSON list of configurations, names as in jaxrl")
    parser.add_argument("out", help="JSON file to write; what is in it already is not run again")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--env", default="CartPole-v1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with open(args.table) as file:
        table = json.load(file)
    result = {"stable_baselines3": stable_baselines3.__version__, "steps": args.steps, "runs": []}
    if os.path.exists(args.out):
        with open(args.out) as file:
            result = json.load(file)
    done = {(run["config"], run["seed"]) for run in result["runs"]}
    for seed in range(args.seeds):
        for config, configuration in enumerate(table):
            if (config, seed) in done:
                continue
            began = time.perf_counter()
            model = build(configuration, args.steps, seed, args.env)
            model.learn(args.steps)
            seconds = time.perf_counter() - began
            mean = float(np.mean(greedy_returns(model, args.episodes, seed)))
            run = {"config": config, "seed": seed, "eval_return_mean": mean, "seconds": seconds}
            result["runs"].append(run)
            print(json.dumps(run), flush=True)
            with open(args.out + ".part", "w") as file:
                json.dump(result, file, indent=1)
            os.replace(args.out + ".part", args.out)


if __name__ == "__main__":
    main()
