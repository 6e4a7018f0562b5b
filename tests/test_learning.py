"""Learning, against Stable-Baselines3 on the same configurations. Minutes long: ``pytest -m slow``."""

import csv
import json
import math
import pathlib
import statistics

import pytest
import scipy.stats

from jaxrl.episodes import play
from jaxrl.policy import load_policy
from jaxrl.sweep import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


def train(table, seeds, steps, run_dir):
    budget = ["--seeds", str(seeds), "--steps", str(steps), "--final-episodes", "50"]
    table = str(BENCHMARKS / "tables" / f"{table}.json")
    assert main(["--config-table", table, *budget, "--no-track", "--run-dir", str(run_dir)]) == 0
    with (run_dir / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def of_sb3(table, config):
    runs = json.loads((BENCHMARKS / "results" / f"sb3-{table}.json").read_text())["runs"]
    return [run["eval_return_mean"] for run in runs if run["config"] == config]


def test_the_zoos_configuration_learns_cartpole_as_well_as_with_stable_baselines3(tmp_path):
    rows = train("zoo", 32, 50_000, tmp_path / "run")
    best = [float(row["best_return_mean"]) for row in rows]
    assert sum(value >= 475 for value in best) >= 30
    last = [float(row["eval_return_mean"]) for row in rows]
    # Last policies scatter from 10 to 500 with either; worse would be a shift that chance does not
    # explain.
    worse = scipy.stats.mannwhitneyu(last, of_sb3("zoo", 0), alternative="less")
    assert worse.pvalue > 0.01


def test_configurations_of_the_notebook_agree_with_stable_baselines3(tmp_path):
    rows = train("notebook", 12, 30_000, tmp_path / "run")
    for config in range(4):
        ours = [float(row["eval_return_mean"]) for row in rows if int(row["config"]) == config]
        theirs = of_sb3("notebook", config)
        spread = math.hypot(
            *(statistics.stdev(values) / math.sqrt(len(values)) for values in (ours, theirs))
        )
        assert abs(statistics.mean(ours) - statistics.mean(theirs)) < 3 * spread


def test_a_winner_on_fresh_seeds_holds_in_gymnasium(tmp_path):
    run_dir, table = tmp_path / "run", str(BENCHMARKS / "tables" / "zoo.json")
    options = ["--select", "best", "--finalists", "1", "--final-seeds", "8", "--no-track"]
    assert main(["--config-table", table, *options, "--run-dir", str(run_dir)]) == 0
    (winner,) = json.loads((run_dir / "finalists.json").read_text())
    assert winner["fresh_iqm"] > 475
    policy = load_policy(run_dir / "best" / "1")
    returns = play(policy, 1000).returns
    error = 2 * returns.std() / math.sqrt(1000)  # of both: each mean is over 1,000 episodes
    assert abs(returns.mean() - policy.scores["best_return_mean"]) <= 4 * error
