"""Times Stable-Baselines3's DQN on workload W1, one process a core; prints one line of JSON.

Stands alone: needs stable-baselines3 (``pip install jaxrl[bench]``) and not jaxrl. The values of the
workload come as JSON on the command line.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import time

from sb3_dqn import build


def train(values: dict, steps: int, seed: int) -> float:
    """Seconds that one agent takes, once it is built."""
    model = build(values, steps, seed, "CartPole-v1")
    began = time.perf_counter()
    model.learn(steps)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("values", type=json.loads)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        jobs = [(args.values, args.steps, seed) for seed in range(args.processes)]
        seconds = pool.starmap(train, jobs)
    result = {
        "system": f"Stable-Baselines3 {importlib.metadata.version('stable_baselines3')}",
        "agents": args.processes,
        "steps": args.steps,
        "seconds": [max(seconds)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
