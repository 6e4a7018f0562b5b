"""``python -m jaxrl.bench``: how fast this machine trains, its GPU beside its CPU."""

import argparse
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from jaxrl.benchmark import machine
from jaxrl.benchmark.processes import measured, peers
from jaxrl.command import Parser, say_error
from jaxrl.errors import InputError
from jaxrl.tracking.console import PatientConsole, say

_NO_GPU = (
    "no GPU: JAX sees none here. With an NVIDIA card and its driver, pip install 'jaxrl[cuda12]' (or "
    "cuda13) brings what is missing."
)
_PICTURES = (".png", ".pdf", ".svg")
_HEADER = (
    "device   agents  compile   env steps/s   updates/s  s an agent   GF/s  of peak     memory"
)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.bench", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--device", choices=["auto", "cpu", "gpu"], default="auto", help="(both that there are)"
    )
    parser.add_argument(
        "--workload",
        choices=["w1", "w2", "w3"],
        default="w1",
        help="w1: one small network; w2: the hands-on-rl course's space; w3: MinAtar-Breakout "
        "(%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="once each, in under a minute")
    parser.add_argument(
        "--configs", type=int, default=1000, help="of the sweep whose time is told (%(default)s)"
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE.png", help="draw it")
    parser.add_argument(
        "--peers", action="store_true", help="measure Stable-Baselines3 and rejax on w1 as well"
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PYTHON", help="a Python that has them"
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    if args.configs < 1:
        raise InputError(f"--configs {args.configs}: give 1 or more.")
    if args.peers and args.device == "gpu":
        raise InputError("--peers run on the CPU: leave --device gpu out.")
    if args.peers and shutil.which(args.peer_python) is None:
        raise InputError(f"--peer-python {args.peer_python}: there is no such program.")
    if args.peers and args.workload != "w1":
        raise InputError("--peers run workload w1: leave --workload out.")
    if args.quick and args.workload == "w3":
        raise InputError("--quick is for w1 and w2: one agent of w3 alone takes a minute.")
    for file in (args.json, args.plot):
        if file is not None and not file.absolute().parent.is_dir():
            raise InputError(f"{file} cannot be written: {file.absolute().parent} is no folder.")
        if file is not None and file.is_dir():
            raise InputError(f"{file} cannot be written: it is a folder.")
    if args.plot is not None and args.plot.suffix not in _PICTURES:
        raise InputError(f"--plot {args.plot}: give a name that ends in {', '.join(_PICTURES)}.")


def _bench_device(
    console: Console, device: str, args: argparse.Namespace, share: float
) -> dict[str, Any]:
    """Measures one device in a share of the time, and prints a line for each population."""
    repeats, seconds = (1, 50 * share) if args.quick else (3, 600 * share)
    lines = measured(device, args.workload, populations=(), repeats=repeats, seconds=seconds)
    result = next(lines) | {"populations": []}
    peak = result["matrix_product_flops_per_second"]
    say(console, f"{result['device']}: {peak / 1e9:,.0f} GF/s in large matrix products")
    for row in lines:
        result["populations"].append(row)
        say(
            console,
            f"{device:6s} {row['population']:8,d} {row['compile_seconds']:7.1f}s "
            f"{row['steps_per_second']:13,.0f} {row['updates_per_second']:11,.0f} "
            f"{row['seconds_per_agent']:11.4f} "
            f"{row['flops_per_second'] / 1e9:6.1f} {row['peak_fraction']:8.1%} "
            f"{row['memory_bytes'] / 2**20:6,.0f} MiB",
        )
    return result


def _bench_devices(console: Console, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The devices that were asked for and are there."""
    results = {}
    if args.device != "cpu":
        try:
            results["gpu"] = _bench_device(console, "gpu", args, share=0.5)
        except InputError:
            if args.device == "gpu":
                raise
            say(console, _NO_GPU)
    if args.device != "gpu":
        results["cpu"] = _bench_device(console, "cpu", args, share=0.5 if results else 1.0)
    return results


def _bench_peers(console: Console, python: str, ours: dict[str, Any]) -> list[dict[str, Any]]:
    """Measures the peers, then our own best population again, so that all ran alike."""
    best = min(ours["populations"], key=lambda row: row["seconds_per_agent"])["population"]
    again = list(measured("cpu", "w1", populations=[best], repeats=1, seconds=0))[1]
    single = ours["populations"][0]["seconds_per_agent"]
    loop = {"name": "a loop over single agents of jaxrl's", "seconds_per_agent": single}
    results = [loop]
    for peer in peers():
        result = peer.run(python)
        if result is None:
            say(console, f"{peer.name}: not installed; pip install 'jaxrl[bench]' brings it")
        else:
            results.append({"name": peer.name, **result})
    for result in results:
        result["ratio"] = result["seconds_per_agent"] / again["seconds_per_agent"]
        say(
            console,
            f"{result['name']}: {result['seconds_per_agent']:.3f} s an agent; "
            f"jaxrl with {best:,} agents is {result['ratio']:.1f} times as fast",
        )
    return results


def overtaking(slow: Sequence[dict[str, Any]], fast: Sequence[dict[str, Any]]) -> float | None:
    """The population from which on ``fast`` makes more steps a second than ``slow``, straight lines
    drawn between measured populations on logarithmic axes; nothing where it never does."""
    there = {row["population"]: row["steps_per_second"] for row in slow}
    both = [
        (row["population"], math.log(row["steps_per_second"] / there[row["population"]]))
        for row in fast
        if row["population"] in there
    ]
    behind = [index for index, (_, lead) in enumerate(both) if lead <= 0]
    if not both or (behind and behind[-1] == len(both) - 1):
        return None
    if not behind:
        return float(both[0][0])
    (n0, lead0), (n1, lead1) = both[behind[-1]], both[behind[-1] + 1]
    return float(n0 * (n1 / n0) ** (-lead0 / (lead1 - lead0)))


def _conclude(console: Console, results: dict[str, dict[str, Any]], configs: int) -> dict[str, Any]:
    """What follows from the figures, in words."""
    conclusions: dict[str, Any] = {"sweep": {}}
    if len(results) == 2:
        population = overtaking(results["cpu"]["populations"], results["gpu"]["populations"])
        conclusions["gpu_overtakes_at"] = population
        if population is None:
            say(console, "the GPU does not overtake the CPU at any population measured")
        else:
            say(console, f"the GPU overtakes the CPU at about {population:,.0f} agents")
    for name, result in results.items():
        rows = result["populations"]
        nearest = min(rows, key=lambda row: abs(math.log(row["population"] / configs)))
        seconds = nearest["compile_seconds"] + nearest["seconds_per_agent"] * configs
        conclusions["sweep"][name] = {"configs": configs, "seconds": seconds}
        say(console, f"{configs:,} such configurations take about {seconds:,.0f} s on the {name}")
    return conclusions


def _bench(console: Console, args: argparse.Namespace) -> None:
    say(console, _HEADER)
    results = _bench_devices(console, args)
    report = {
        "what": f"python -m jaxrl.bench, workload {args.workload}",
        "machine": machine.describe(),
        "devices": results,
        **_conclude(console, results, args.configs),
    }
    try:
        if args.peers:
            report["peers"] = _bench_peers(console, args.peer_python, results["cpu"])
    finally:  # whatever a peer does, what was measured is kept
        if args.json is not None:
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot is not None:
        from jaxrl.benchmark.picture import draw

        draw(report, args.plot)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    try:
        args = _parser().parse_args(argv)
        _check(args)
        _bench(PatientConsole(), args)
    except (InputError, RuntimeError) as error:
        return say_error(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
