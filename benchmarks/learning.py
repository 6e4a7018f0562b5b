"""Learning: jaxrl against Stable-Baselines3 on the same configurations, last policies.

Reads what ``peers/sb3_dqn.py`` wrote for a table, trains the table with jaxrl, and writes both and
their difference. ``zoo`` is rl-baselines3-zoo's configuration for CartPole, ``notebook`` a handful
from the hands-on-rl course's space.
"""

import argparse
import csv
import json
import math
import pathlib
import statistics
import tempfile

from jaxrl.benchmark import machine
from jaxrl.search.results import interquartile_mean
from jaxrl.sweep import main as sweep

HERE = pathlib.Path(__file__).parent
STEPS = {"zoo": 50_000, "notebook": 30_000}
SOLVED = 475.0


def summary(returns: list[float]) -> dict[str, object]:
    """Mean, its standard error, interquartile mean and how many solve the task."""
    return {
        "seeds": len(returns),
        "mean": statistics.mean(returns),
        "standard_error": statistics.stdev(returns) / math.sqrt(len(returns)),
        "interquartile_mean": interquartile_mean(returns),
        "at_500": sum(value == 500 for value in returns),
        "at_475_or_more": sum(value >= SOLVED for value in returns),
        "returns": sorted(returns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=sorted(STEPS))
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--out", type=pathlib.Path, help="(benchmarks/results/learning-TABLE.json)")
    args = parser.parse_args()
    table = HERE / "tables" / f"{args.table}.json"
    sb3 = json.loads((HERE / "results" / f"sb3-{args.table}.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        budget = ["--steps", str(STEPS[args.table]), "--final-episodes", "50"]
        where = ["--run-dir", str(run_dir), "--no-track"]
        sweep(["--config-table", str(table), "--seeds", str(args.seeds), *budget, *where])
        with (run_dir / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    result = {
        "what": f"{args.table}: mean return of 50 greedy episodes of a seed's policy",
        "machine": machine.describe(),
        "steps": STEPS[args.table],
        "configurations": [],
    }
    for number, configuration in enumerate(json.loads(table.read_text())):
        own = [row for row in rows if int(row["config"]) == number]
        theirs = [run["eval_return_mean"] for run in sb3["runs"] if run["config"] == number]
        last, best = (
            [float(row[f"{name}_return_mean"]) for row in own] for name in ("eval", "best")
        )
        ours, peer = summary(last), summary(theirs)
        spread = math.hypot(ours["standard_error"], peer["standard_error"])
        entry = {
            "configuration": configuration,
            "stable_baselines3_last": peer,
            "jaxrl_last": ours,
            "jaxrl_best_along_the_way": summary(best),
            "difference_of_means_in_joint_standard_errors": (ours["mean"] - peer["mean"]) / spread,
        }
        result["configurations"].append(entry)
        print(number, {k: v for k, v in peer.items() if k != "returns"})
        print(number, {k: v for k, v in ours.items() if k != "returns"})
    out = args.out or HERE / "results" / f"learning-{args.table}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
