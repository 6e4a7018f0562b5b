"""How early an evaluation tells which configurations will hold, and what it costs to find them.

python benchmarks/rungs.py [--run-dir DIR] [--json benchmarks/results/rungs.json]

Trains 160 configurations of the course's space to their end with five seeds each: the first of 400
drawn evenly that are predicted to take three seconds or less. That takes a quarter of an hour on two
cores; or it takes the sweep of a directory where that was done. A configuration *holds* if the
interquartile mean of its seeds, by the best policy along the way, is 475 or more.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from jaxrl.benchmark import machine
from jaxrl.dqn.environment import make
from jaxrl.history import History
from jaxrl.population.cost import seconds
from jaxrl.saved import SavedSweep
from jaxrl.search.pruners import FACTOR
from jaxrl.search.results import Results, interquartile_mean
from jaxrl.search.schedule import to_agent
from jaxrl.search.space import load_space
from jaxrl.search.study import Proposer
from jaxrl.tracking.journal import read

DRAWN, TRAINED, LIMIT, STEPS, SEEDS, TARGET = 400, 160, 3.0, 50_000, 5, 475.0
BANDS = (0.25, 0.4, 0.7, 1.0, 2.0)


def train(run_dir: pathlib.Path) -> None:
    space, env = load_space("hands-on-rl"), make("CartPole-v1")
    rows = Proposer(space, "random", 77, DRAWN).ask(0, DRAWN, ())
    costs = [seconds(to_agent(row, 0, STEPS).configuration, env, STEPS) for row in rows]
    cheap = [row for row, cost in zip(rows, costs, strict=True) if cost <= LIMIT][:TRAINED]
    table = [{name: v for name, v in row.items() if name != "seed"} for row in cheap]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.json"
        path.write_text(json.dumps(table))
        what = ["--config-table", str(path), "--seeds", str(SEEDS), "--seed", "500"]
        how = ["--select", "best", "--device", "cpu", "--no-track", "--run-dir", str(run_dir)]
        subprocess.run([sys.executable, "-m", "jaxrl.sweep", *what, *how], check=True)


def results_of(run_dir: pathlib.Path) -> Results:
    saved = SavedSweep.read(run_dir)
    history = History(saved.spec, saved.generation)
    for record, _ in read(run_dir / "journal"):
        history.take(record)
    return history.results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = args.run_dir or pathlib.Path(folder) / "whole"
        if not run_dir.exists():
            train(run_dir)
        results = results_of(run_dir)
    env, configs = make("CartPole-v1"), sorted(results.ranking())
    scores = np.array([[r.best_return_mean for r in results.seeds(c)] for c in configs])
    steps = sorted(results.of_agent[0].evaluations)
    curves = np.array(
        [[[r.evaluations[s] for s in steps] for r in results.seeds(c)] for c in configs]
    )
    first = [results.seeds(c)[0].agent.configuration for c in configs]
    costs = np.array([seconds(configuration, env, STEPS) for configuration in first])
    holds = np.array([interquartile_mean(row) >= TARGET for row in scores])
    best_so_far = np.maximum.accumulate(curves, axis=2)
    kept = {}
    for place, step in enumerate(steps):
        order = np.argsort(-best_so_far[:, :, place], axis=0, kind="stable")
        ranks = np.argsort(order, axis=0)
        kept[step] = float((ranks[holds] < len(configs) / FACTOR).mean())
    high = scores >= TARGET
    others = np.array(
        [[interquartile_mean(np.delete(row, k)) >= TARGET for k in range(SEEDS)] for row in scores]
    )
    band = np.digitize(costs, BANDS)
    rows = [
        {
            "predicted_seconds_below": BANDS[b] if b < len(BANDS) else LIMIT,
            "configurations": int((band == b).sum()),
            "hold": int(holds[band == b].sum()),
            "hold_per_predicted_second": float(holds[band == b].sum() / costs[band == b].sum()),
        }
        for b in range(len(BANDS) + 1)
    ]
    result = {
        "machine": machine.describe(),
        "configurations": len(configs),
        "hold": int(holds.sum()),
        "seeds_of_these_in_the_best_third_by_step": kept,
        "one_seed_scores": float(high.mean()),
        "of_which_hold_on_the_other_seeds": float(others[high].mean()),
        "by_cost": rows,
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
