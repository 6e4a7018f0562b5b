"""MinAtar-Breakout: seeds of the settings that rejax publishes, and what a search around them finds.

Everything takes rejax's million steps; the network is a perceptron. The search trains its best two
again on fresh seeds. Random play is 1,000 episodes in gymnax's environment.
"""

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np

from jaxrl import SweepSpec, sweep
from jaxrl.benchmark import machine
from jaxrl.benchmark.workloads import W3_VALUES
from jaxrl.dqn.environment import make
from jaxrl.episodes import play_gymnax

HERE = pathlib.Path(__file__).parent
ENV = "Breakout-MinAtar"
LENGTH = {"env": ENV, "steps": 1_000_000, "eval_every": 50_000, "device": "cpu"}


class ByChance:
    """Stands in for a policy, and looks at nothing."""

    env_id = ENV

    def __init__(self) -> None:
        env = make(ENV)
        self.observation_mean, self.num_actions = np.zeros(env.observation_size), env.num_actions
        self._rng = np.random.default_rng(0)

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self._rng.integers(self.num_actions, size=len(observations))


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
    by_chance = float(play_gymnax(ByChance(), 1_000).returns.mean())
    result: dict[str, object] = {"machine": machine.describe(), "random": by_chance}
    with tempfile.TemporaryDirectory() as folder:
        for measure, count in ((seeds, args.seeds), (search, args.configs)):
            result[measure.__name__] = timed(measure, pathlib.Path(folder), count)
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
