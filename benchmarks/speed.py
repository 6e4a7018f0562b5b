"""Workload W1: jaxrl against rejax, and flatness in replay size and population, in one run.

Everything runs in processes of its own, in turns, so that a noisy machine disturbs all alike; the
figures are medians, the ratios are of medians.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import machine

HERE = pathlib.Path(__file__).parent
OURS = [sys.executable, str(HERE / "jaxrl_dqn.py")]


def measure(command: list[str]) -> dict:
    """Runs a benchmark process; its JSON with the median of its times as steps a second."""
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(output.splitlines()[-1])
    steps = result["agents"] * result["steps"]
    result["steps_per_second"] = steps / statistics.median(result["seconds"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has rejax")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(HERE / "results" / "w1-cpu.json"))
    args = parser.parse_args()
    rejax = [args.peer_python, str(HERE / "peers" / "rejax_dqn.py"), "--repeats", "1"]
    commands = {
        "jaxrl, 64 agents": [*OURS, "--repeats", "1"],
        "rejax, 64 agents": rejax,
        "rejax, 16 agents": [*rejax, "--agents", "16"],
        "jaxrl, 8 agents, 1,000,000 steps, replay of 1,000,000": [
            *[*OURS, "--repeats", "1", "--steps", "1000000"],
            *["--agents", "8", "--buffer-size", "1000000"],
        ],
        "jaxrl, 8 agents, 1,000,000 steps, replay of 10,000": [
            *[*OURS, "--repeats", "1", "--steps", "1000000"],
            *["--agents", "8", "--buffer-size", "10000"],
        ],
        "jaxrl, 512 agents": [*OURS, "--repeats", "1", "--agents", "512"],
    }
    runs: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            runs[name].append(measure(command))
            print(name, f"{runs[name][-1]['steps_per_second']:,.0f} steps/s", flush=True)
    median = {
        name: statistics.median(run["steps_per_second"] for run in of) for name, of in runs.items()
    }
    ours = median["jaxrl, 64 agents"]
    best_rejax = max(median["rejax, 64 agents"], median["rejax, 16 agents"])
    large, small = (median[name] for name in list(commands)[3:5])
    result = {
        "what": "W1, environment steps a second over all agents, compilation apart",
        "machine": machine.describe(),
        "steps_per_second": median,
        "ratios": {
            "jaxrl against rejax, 64 agents each": ours / median["rejax, 64 agents"],
            "jaxrl against rejax at its better population": ours / best_rejax,
            "time a step, replay of 1,000,000 against 10,000": small / large,
            "time an agent, 512 against 64": ours / median["jaxrl, 512 agents"],
        },
        "runs": runs,
    }
    pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ratios"], indent=1))


if __name__ == "__main__":
    main()
