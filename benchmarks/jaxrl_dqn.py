"""Times jaxrl on workload W1 with learning rates spread as rejax's are; prints one line of JSON.

The time runs from the first step of the first tile to the end of the last final evaluation; what is
still being compiled by then counts against us.
"""

import argparse
import json
import time

import numpy as np

from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.devices import configure
from jaxrl.population.plan import Agent, Budget, make_plan
from jaxrl.population.train import train

W1 = {
    "batch_size": 128,
    "train_freq": 10,
    "gradient_steps": 1,
    "target_update_interval": 500,
    "learning_starts": 10_000,
    "hidden_sizes": [64, 64],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--buffer-size", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    values = W1 | {"buffer_size": args.buffer_size, "epsilon_decay_steps": args.steps // 2}
    rates = np.logspace(-4, -2, args.agents)
    agents = [
        Agent(Configuration.create(values | {"learning_rate": rate}, args.steps), seed)
        for seed, rate in enumerate(rates)
    ]
    budget = Budget(args.steps, args.steps // 20, eval_episodes=10, final_episodes=10)
    plan = make_plan(agents, budget, make("CartPole-v1"), configure("cpu"))
    compile_seconds, seconds = [], []
    for _ in range(args.repeats):
        began = time.perf_counter()
        first = None
        for report in train(plan):
            if first is None:
                first = time.perf_counter() - report.seconds
        assert first is not None
        compile_seconds.append(first - began)
        seconds.append(time.perf_counter() - first)
    result = {"system": "jaxrl", "agents": args.agents, "steps": args.steps}
    print(json.dumps(result | {"compile_seconds": compile_seconds, "seconds": seconds}))


if __name__ == "__main__":
    main()
