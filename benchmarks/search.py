"""Time until a search finds a configuration that holds: ours against each other and against Optuna's
TPE over Stable-Baselines3, one trial after another, in the course's space.

python benchmarks/search.py run OUT [--repeats 5] [--methods NAME ...]
python benchmarks/search.py judge OUT [--peer FILE ...]

``run`` searches with each method, in turns, as the command does, and keeps what each named its best
configuration when: after every generation. Each run compiles everything anew, but for the methods that
say ``cached``. ``judge`` trains what was named on eight fresh seeds, off the clock, until one of a run
scores 475 or more on their interquartile mean. A peer is the output of
``jaxrl/benchmark/peers/sb3_tpe.py``; of it every trial that scores 475 is judged, in its order, and by
the same judge: our agents score as its do (``benchmarks/learning.py``).
"""

import argparse
import csv
import json
import math
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import psutil

from jaxrl.benchmark import machine
from jaxrl.dqn.hyperparameters import NAMES
from jaxrl.saved import SavedSweep
from jaxrl.search.generation import Generation, copies_of_record, report_of_record
from jaxrl.search.results import Results, interquartile_mean
from jaxrl.search.table import parse_cell
from jaxrl.tracking.journal import read

TARGET, FRESH_SEEDS, FIRST_FRESH = 475.0, 8, 2**30
BUDGET = ("--budget-seconds", "60")
VERIFIED = (*BUDGET, "--verify", "2")
METHODS = {
    "drawn evenly": ("--configs", "128", "--generations", "8", "--verify", "0"),
    "halving, not verified": (*BUDGET, "--verify", "0"),
    "random": (*VERIFIED, "--pruner", "none"),
    "halving": VERIFIED,
    "hyperband": (*VERIFIED, "--pruner", "hyperband"),
    "tpe, halving": (*VERIFIED, "--sampler", "tpe"),
    "pbt": (*VERIFIED, "--pbt"),
    "halving, cached": VERIFIED,
    "halving, to the target": (*VERIFIED, "--stop-at", str(TARGET)),
    "halving, to the target, cached": (*VERIFIED, "--stop-at", str(TARGET)),
}
LIMITS = {"drawn evenly": 80.0}
LIMIT = 45.0
"""Seconds after which a search is ended."""
QUIET = 0.1
"""Cores that may be busy with something else, on average; a run beside more is done again."""
_SPACE = ("--space", "hands-on-rl", "--select", "best", "--device", "cpu", "--no-track")
_RANKED = ("--rank-by", "iqm")


def run(method: str, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    """One search: after each generation the seconds since its start, and what is its best so far."""
    run_dir = folder / f"{method}-{seed}".replace(" ", "-")
    cache = folder / "cache" if "cached" in method else run_dir.with_suffix(".cache")
    command = [sys.executable, "-m", "jaxrl.sweep", *_SPACE, *_RANKED, *METHODS[method]]
    began, busy = time.time(), _busy_seconds()
    process = subprocess.Popen(
        [*command, "--seed", str(seed), "--run-dir", str(run_dir)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(LIMITS.get(method, LIMIT))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
    others = (_busy_seconds() - busy) / (time.time() - began)
    with (run_dir / "results.csv").open(newline="") as file:
        rows = {int(row["config"]): row for row in csv.DictReader(file)}  # of its last seed, any
    named = [
        {"seconds": at / 1000 - began, "score": score, "values": values_of(rows[config])}
        for at, config, score in bests(run_dir)
    ]
    shutil.rmtree(run_dir)
    return {"seed": seed, "other_cores": others, "configurations": len(rows), "named": named}


def _busy_seconds() -> float:
    """Processor seconds of everything on this machine but this process's children that have ended."""
    times, mine = psutil.cpu_times(), os.times()
    everything = sum(times) - times.idle - times.iowait
    return everything - mine.children_user - mine.children_system


def bests(run_dir: pathlib.Path) -> Iterator[tuple[int, int, float]]:
    """What the search calls its best configuration, with its score, and since the end of which
    generation, in milliseconds since 1970."""
    sweep = SavedSweep.read(run_dir).prepare()
    spec, first = sweep.spec, sweep.generation
    results = Results(first.agents, first.configs, spec.final_episodes, spec.select, spec.rank_by)
    end, named = 0, None
    for record, _ in read(run_dir / "journal"):
        if record["kind"] in ("evaluation", "final"):
            results.update(report_of_record(record, 0))
            end = record["time"] if record["kind"] == "final" else end
        elif record["kind"] == "copies":
            copies = copies_of_record(record, first.first, spec.steps)
            results.copy(record["step"], copies, first.first)
        elif record["kind"] == "generation" or record.get("status") == "finished":
            for best in results.sound(1):
                if named != (named := (best, results.average(best))):
                    yield end, *named
            if record["kind"] == "generation":
                first = Generation.of_record(record, spec.steps)
                results.add(first.agents, first.configs)


def values_of(row: dict[str, str]) -> dict[str, Any]:
    names = [*NAMES, "schedule"] if row.get("schedule") else NAMES
    return {name: parse_cell(row[name]) for name in names}


def peer_run(path: pathlib.Path) -> dict[str, Any]:
    """The same of a peer's trials: all of them, since it names no best until it ends."""
    content = json.loads(path.read_text())
    for trial in content["trials"]:
        trial["values"].pop("seed", None)  # it was the search's
    return {**content, "configurations": len(content["trials"]), "named": content["trials"]}


def fresh_score(values: list[dict[str, Any]], folder: pathlib.Path) -> list[float]:
    """Interquartile means over fresh seeds of the best policies of configurations."""
    table, run_dir = folder / "table.json", folder / "judged"
    table.write_text(json.dumps(values))
    options = ["--seeds", str(FRESH_SEEDS), "--seed", str(FIRST_FRESH)]
    command = [sys.executable, "-m", "jaxrl.sweep", *_SPACE[2:], *options]
    arguments = ["--config-table", str(table), "--run-dir", str(run_dir)]
    subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL)
    scores: dict[int, list[float]] = {}
    with (run_dir / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            scores.setdefault(int(row["config"]), []).append(float(row["best_return_mean"]))
    return [interquartile_mean(scores[config]) for config in range(len(values))]


def judge(runs: list[dict[str, Any]], known: dict[str, float]) -> None:
    """Gives each run ``found_at``, the seconds until the first of what it named held; None if none
    did."""
    while True:
        waiting: dict[str, dict[str, Any]] = {}
        for each in runs:
            each["found_at"] = None
            for best in each["named"]:
                key = json.dumps(best["values"])
                if best["score"] < TARGET or known.get(key, TARGET) < TARGET:
                    continue
                if key in known:
                    each["found_at"] = best["seconds"]
                else:
                    waiting[key] = best["values"]
                break
        if not waiting:
            return
        with tempfile.TemporaryDirectory() as folder:
            scores = fresh_score([*waiting.values()], pathlib.Path(folder))
        known.update(zip(waiting, scores, strict=True))
        print(f"judged {len(waiting)}: {[round(score) for score in scores]}", flush=True)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    times = [math.inf if each["found_at"] is None else each["found_at"] for each in runs]
    median = statistics.median(times)
    return {
        "seconds": [None if math.isinf(t) else round(t, 1) for t in times],
        "median_seconds": None if math.isinf(median) else round(median, 1),
        "configurations": [each["configurations"] for each in runs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "judge"])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--peer", nargs="*", type=pathlib.Path, default=[])
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": machine.describe(), "target": TARGET, "runs": {}}
    if args.out.exists():
        result = json.loads(args.out.read_text())
    if args.what == "run":
        with tempfile.TemporaryDirectory() as folder:
            for repeat in range(-1, args.repeats):
                for method in args.methods:
                    is_cached = "cached" in method
                    if repeat < 0 and not is_cached:
                        continue
                    seed = 1000 * (repeat + 1)
                    if any(r["seed"] == seed for r in result["runs"].get(method, ())):
                        continue
                    found = run(method, seed, pathlib.Path(folder))
                    while found["other_cores"] > QUIET:
                        print(f"{method} {repeat}: {found['other_cores']:.2f} cores busy; again")
                        found = run(method, seed, pathlib.Path(folder))
                    print(
                        method, repeat, [(round(b["seconds"]), b["score"]) for b in found["named"]]
                    )
                    if repeat >= 0:  # before, what fills the cache
                        result["runs"].setdefault(method, []).append(found)
                        args.out.write_text(json.dumps(result, indent=1) + "\n")
        return
    if args.peer:
        result["runs"]["sb3, tpe"] = [peer_run(path) for path in args.peer]
    known = result.setdefault("fresh_scores", {})
    judge([each for runs in result["runs"].values() for each in runs], known)
    result["summary"] = {method: summary(runs) for method, runs in result["runs"].items()}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
