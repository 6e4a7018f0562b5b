"""How much a search flatters its winners: the score they were chosen for against fresh seeds.

python benchmarks/flattery.py [--repeats 3] [--json benchmarks/results/flattery.json]

Searches of the space ``cartpole`` as the command does them, ranked by last or by best policies, with
one seed a configuration or four; the best five are trained again on eight fresh seeds.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from jaxrl.benchmark import machine

CONFIGS, FINALISTS, FRESH_SEEDS = 64, 5, 8


def search(select: str, seeds: int, seed: int, folder: pathlib.Path) -> list[dict[str, float]]:
    """The finalists of one search, the winner on fresh seeds first."""
    run_dir = folder / f"{select}-{seeds}-{seed}"
    options = {
        "--configs": CONFIGS,
        "--seeds": seeds,
        "--seed": seed,
        "--select": select,
        "--finalists": FINALISTS,
        "--final-seeds": FRESH_SEEDS,
        "--run-dir": run_dir,
        "--device": "cpu",
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    command = [sys.executable, "-m", "jaxrl.sweep", "--no-track", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((run_dir / "finalists.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    result: dict[str, object] = {"machine": machine.describe(), "configs": CONFIGS}
    for select, seeds in itertools.product(("last", "best"), (1, 4)):
        finalists = []
        with tempfile.TemporaryDirectory() as folder:
            for repeat in range(args.repeats):
                finalists.append(search(select, seeds, 1000 * repeat, pathlib.Path(folder)))
        chosen = [max(found, key=lambda row: row["search_score"]) for found in finalists]
        everyone = list(itertools.chain(*finalists))
        summary = {
            "winner_searched": statistics.mean(row["search_score"] for row in chosen),
            "winner_fresh": statistics.mean(row["fresh_mean"] for row in chosen),
            "finalists_searched": statistics.mean(row["search_score"] for row in everyone),
            "finalists_fresh": statistics.mean(row["fresh_mean"] for row in everyone),
            "named_from_fresh": statistics.mean(found[0]["fresh_mean"] for found in finalists),
        }
        print(f"{select}, {seeds} seeds:", {n: round(v, 1) for n, v in summary.items()}, flush=True)
        result[f"{select}, seeds {seeds}"] = {**summary, "finalists": finalists}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
