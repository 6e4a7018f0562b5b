"""MinAtar-Breakout: seeds of the settings that rejax publishes, and what a search around them finds.

Everything takes rejax's million steps; the network is a perceptron. The search trains its best two
again on fresh seeds. Random play is gymnax's environment with actions by chance.
"""

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np

from jaxrl import SweepSpec, sweep
from jaxrl.benchmark import machine
from jaxrl.benchmark.workloads import W3_VALUES
from jaxrl.dqn.environment import make

HERE = pathlib.Path(__file__).parent
ENV = "Breakout-MinAtar"
LENGTH = {"env": ENV, "steps": 1_000_000, "eval_every": 50_000, "device": "cpu"}


def random_return(episodes: int = 1_000, steps: int = 1_000) -> float:
    """Mean return of random play, of episodes that all end within ``steps``."""
    env = make(ENV)
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    key = jax.random.key(0)
    _, state = reset(jax.random.split(key, episodes))
    returns, running = np.zeros(episodes), np.ones(episodes, bool)
    for t in range(steps):
        keys = jax.random.split(jax.random.fold_in(key, t), episodes)
        actions = jax.random.randint(
            jax.random.fold_in(key, steps + t), (episodes,), 0, env.num_actions
        )
        taken, state = step(keys, state, actions)
        returns += np.where(running, np.asarray(taken.reward), 0.0)
        running &= ~np.asarray(taken.terminated | taken.truncated)
    assert not running.any()
    return float(returns.mean())


def seeds(folder: pathlib.Path, count: int) -> dict[str, object]:
    """Last policies of the published settings."""
    fixed = {**W3_VALUES, "gamma": 0.99}
    table = folder / "table.json"
    table.write_text(json.dumps([fixed]))
    found = sweep(
        SweepSpec(**LENGTH, config_table=str(table), seeds=count), folder / "seeds", quiet=False
    )
    last, best = found.results.eval_return_mean, found.results.best_return_mean
    return {
        "configuration": fixed,
        "last_policies": last.tolist(),
        "best_along_the_way": best.tolist(),
    }


def search(folder: pathlib.Path, configs: int) -> dict[str, object]:
    """The packaged space, and what its best are worth on fresh seeds."""
    spec = SweepSpec(
        **LENGTH, space="breakout", configs=configs, pruner="halving", finalists=2, final_seeds=3
    )
    found = sweep(spec, folder / "search", quiet=False)
    return {
        "command": spec.command(),
        "statuses": found.results.status.value_counts().to_dict(),
        "finalists": json.loads((found.run_dir / "finalists.json").read_text()),
        "fresh": found.finalists.to_dict("records"),
    }


def timed(measure: Callable[..., dict[str, object]], *args: object) -> dict[str, object]:
    """What is measured, and the seconds from the command to the report."""
    began = time.monotonic()
    return {**measure(*args), "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--configs", type=int, default=16)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "breakout.json")
    args = parser.parse_args()
    result: dict[str, object] = {"machine": machine.describe(), "random": random_return()}
    with tempfile.TemporaryDirectory() as folder:
        for measure, count in ((seeds, args.seeds), (search, args.configs)):
            result[measure.__name__] = timed(measure, pathlib.Path(folder), count)
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
