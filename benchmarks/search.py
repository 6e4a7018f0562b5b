"""Time until a search finds a configuration that holds: ours against each other and against Optuna's
TPE over Stable-Baselines3, one trial after another, in the course's space.

python benchmarks/search.py run OUT [--repeats 5] [--methods NAME ...]
python benchmarks/search.py judge OUT [--peer FILE ...]

``run`` searches with each method, in turns, as the command does, and keeps which configurations scored
475 when, and what it named its best when: after every generation. Each run compiles everything anew,
but for the methods that say ``cached``. ``judge`` trains both on eight fresh seeds, off the clock and
in their order, until one of a run scores 475 or more on their interquartile mean: it holds. A peer is
the output of ``jaxrl/benchmark/peers/sb3_tpe.py``, of whose trials those that score 475 are judged by
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
from jaxrl.history import History
from jaxrl.saved import SavedSweep
from jaxrl.search.results import interquartile_mean
from jaxrl.search.table import parse_cell
from jaxrl.tracking.journal import read

TARGET, FRESH_SEEDS, FIRST_FRESH = 475.0, 8, 2**30
KINDS = ("scored", "named")
AT_ONCE = 3
"""Configurations of a run that are judged beside each other."""
BUDGET = ("--budget-seconds", "60")
VERIFIED = (*BUDGET, "--verify", "2")
METHODS = {
    "drawn evenly": ("--configs", "128", "--generations", "8", "--verify", "0"),
    "random": (*BUDGET, "--pruner", "none"),
    "halving": BUDGET,
    "hyperband": (*BUDGET, "--pruner", "hyperband"),
    "median": (*BUDGET, "--pruner", "median"),
    "tpe, halving": (*BUDGET, "--sampler", "tpe"),
    "pbt": (*BUDGET, "--pbt"),
    "halving, verified": (*VERIFIED, "--stop-at", str(TARGET)),
    "halving, cached": BUDGET,
}
LIMITS = {"drawn evenly": 120.0}
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
    events: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for kind, at, config, score in milestones(run_dir):
        seconds, values = at / 1000 - began, values_of(rows[config])
        events[kind].append({"seconds": seconds, "score": score, "values": values})
    shutil.rmtree(run_dir)
    return {"seed": seed, "other_cores": others, "configurations": len(rows), **events}


def _busy_seconds() -> float:
    """Processor seconds of everything on this machine but this process's children that have ended."""
    times, mine = psutil.cpu_times(), os.times()
    everything = sum(times) - times.idle - times.iowait
    return everything - mine.children_user - mine.children_system


def milestones(run_dir: pathlib.Path) -> Iterator[tuple[str, int, int, float]]:
    """Configurations that reached the target for the first time, and those that the search calls its
    best from the end of a generation on: which of the two, milliseconds since 1970, and score."""
    saved = SavedSweep.read(run_dir)
    history = History(saved.spec, saved.generation)
    results, reached, end, named = history.results, set[int](), 0, None
    for record, _ in read(run_dir / "journal"):
        history.take(record)
        if record["kind"] == "final":
            end = record["time"]
            for config in {results.of_agent[agent].config for agent in record["agents"]} - reached:
                if (score := results.average(config)) >= TARGET:
                    reached.add(config)
                    yield "scored", end, config, score
        elif record["kind"] == "generation" or record.get("status") == "finished":
            for best in results.sound(1):
                if named != (named := (best, results.average(best))):
                    yield "named", end, *named


def values_of(row: dict[str, str]) -> dict[str, Any]:
    names = [*NAMES, "schedule"] if row.get("schedule") else NAMES
    return {name: parse_cell(row[name]) for name in names}


def peer_run(path: pathlib.Path) -> dict[str, Any]:
    """The same of a peer's trials; all of them, since it names no best until it ends."""
    content = json.loads(path.read_text())
    for trial in content["trials"]:
        trial["values"].pop("seed", None)  # it was the search's
    trials = content.pop("trials")
    return {**content, "configurations": len(trials), **{kind: trials for kind in KINDS}}


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
    """Gives each run ``held``: by kind of event the seconds until the first whose configuration
    holds; None if none did."""
    while True:
        waiting: dict[str, dict[str, Any]] = {}
        for each in runs:
            each["held"] = {kind: _first_held(each[kind], known, waiting) for kind in KINDS}
        if not waiting:
            return
        with tempfile.TemporaryDirectory() as folder:
            scores = fresh_score([*waiting.values()], pathlib.Path(folder))
        known.update(zip(waiting, scores, strict=True))
        print(f"judged {len(waiting)}: {[round(score) for score in scores]}", flush=True)


def _first_held(
    events: list[dict[str, Any]], known: dict[str, float], waiting: dict[str, dict[str, Any]]
) -> float | None:
    """When the first configuration was there that is known to hold; who has to be judged before that
    is known, waits, a few at a time."""
    unknown = 0
    for event in events:
        key = json.dumps(event["values"])
        if event["score"] < TARGET or known.get(key, TARGET) < TARGET:
            continue
        if key in known:
            return event["seconds"] if not unknown else None
        waiting[key] = event["values"]
        unknown += 1
        if unknown == AT_ONCE:
            break
    return None


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    times = {kind: [each["held"][kind] or math.inf for each in runs] for kind in KINDS}
    return {
        "seconds": {
            k: [None if math.isinf(t) else round(t, 1) for t in v] for k, v in times.items()
        },
        "median_seconds": {
            kind: None if math.isinf(median) else round(median, 1)
            for kind, median in ((k, statistics.median(v)) for k, v in times.items())
        },
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
                    print(method, repeat, [round(b["seconds"], 1) for b in found["scored"]])
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
