"""The README's figures of speed, in one run: W1 against its peers, flatness, W2, W3.

Everything runs in processes of its own, in turns, so that a noisy machine disturbs all alike; the
figures are medians, the ratios are of medians.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence

from jaxrl.benchmark import machine
from jaxrl.benchmark.processes import measured, peers

HERE = pathlib.Path(__file__).parent


def ours(workload: str, populations: Sequence[int], repeats: int) -> list[dict]:
    """The device and a row for each population."""
    device, *rows = measured("cpu", workload, populations=populations, repeats=repeats, seconds=0)
    peak = device["matrix_product_flops_per_second"]
    for row in rows:
        print(
            f"{workload}, {row['population']} agents: {row['steps_per_second']:,.0f} steps/s, "
            f"{row['flops_per_second'] / 1e9:.0f} GF/s of {peak / 1e9:.0f}, "
            f"compiled in {row['compile_seconds']:.1f} s, idle {row['idle_fraction']:.1%}",
            flush=True,
        )
    return [device, *rows]


def compare(python: str, rounds: int) -> dict[str, list[float]]:
    """Seconds an agent of W1, ours with 64 agents and the peers', ``rounds`` times in turns."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        _, row = ours("w1", [64], repeats=1)
        seconds.setdefault("jaxrl, 64 agents", []).append(row["seconds_per_agent"])
        for peer in peers():
            result = peer.run(python)
            if result is None:
                sys.exit(f"{python} lacks {peer.package}: pip install 'jaxrl[bench]' there")
            print(peer.name, f"{result['seconds_per_agent']:.3f} s an agent", flush=True)
            seconds.setdefault(peer.name, []).append(result["seconds_per_agent"])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has the peers")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison (%(default)s)")
    parser.add_argument("--large", type=int, default=4096, help="agents (%(default)s)")
    parser.add_argument("--out", default=str(HERE / "results" / "speed-cpu.json"))
    args = parser.parse_args()
    compared = compare(args.peer_python, args.rounds)
    w1 = ours("w1", [args.large], repeats=0)
    w2 = ours("w2", [64], repeats=1)
    w3 = ours("w3", [1, 4], repeats=1)
    large_replay = ours("w1-long-large-replay", [8], repeats=0)
    small_replay = ours("w1-long", [8], repeats=0)
    median = {name: statistics.median(values) for name, values in compared.items()}
    best = median.pop("jaxrl, 64 agents")
    result = {
        "what": "W1, W2 and W3 on the CPU; seconds an agent without compilation",
        "machine": machine.describe(),
        "seconds_per_agent": compared,
        "ratios": {
            **{f"{name}, against jaxrl, 64 agents": value / best for name, value in median.items()},
            f"an agent among {args.large} against one among 64": w1[1]["seconds_per_agent"] / best,
            "a step with a replay of 1,000,000 against one of 10,000": large_replay[1][
                "seconds_per_agent"
            ]
            / small_replay[1]["seconds_per_agent"],
        },
        "w1": w1,
        "w2": w2,
        "w3": w3,
        "w1-long-large-replay": large_replay,
        "w1-long": small_replay,
    }
    pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ratios"], indent=1))


if __name__ == "__main__":
    main()
