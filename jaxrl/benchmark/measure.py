"""Measures one device on a workload, in a process of its own: a line of JSON for each population.

``python -m jaxrl.benchmark.measure --help``. The first line says what the device is and how fast it
multiplies matrices; devices can be chosen only once in a process.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp

from jaxrl.benchmark.workloads import WORKLOADS, Workload
from jaxrl.errors import InputError
from jaxrl.population.cost import operations, updates
from jaxrl.population.devices import Hardware, configure
from jaxrl.population.plan import Plan, make_plan
from jaxrl.population.train import train


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one population."""

    population: int
    compile_seconds: float
    """Until the first tile starts. The first population finds nothing compiled, those after it find
    in the persistent cache what they share."""
    seconds: tuple[float, ...]
    """From the first step to the last final evaluation, of each repetition."""
    idle_fraction: float
    """Of the devices' time, spent between chunks or waiting for the last one."""
    steps_per_second: float
    updates_per_second: float
    seconds_per_agent: float
    flops_per_second: float
    peak_fraction: float
    memory_bytes: int
    """Planned: states of all agents, and what is worked on."""
    device_peak_bytes: int | None
    """Measured, where the device counts."""


def matrix_product_peak(hardware: Hardware, size: int = 1024, turns: int = 20) -> float:
    """Floating-point operations a second of large float32 matrix products, all devices at once; the
    best of five, since a peak is what a machine can do."""

    @jax.jit
    def products(a: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, turns, lambda _, b: a @ b, a)

    def run(device: jax.Device) -> None:
        with jax.default_device(device):
            jax.block_until_ready(products(jnp.full((size, size), 1 / size)))

    seconds = []
    with concurrent.futures.ThreadPoolExecutor(len(hardware.devices)) as pool:
        for _ in range(6):  # the first one compiles
            began = time.perf_counter()
            list(pool.map(run, hardware.devices))
            seconds.append(time.perf_counter() - began)
    return len(hardware.devices) * turns * 2 * size**3 / min(seconds[1:])


def run_once(plan: Plan) -> tuple[float, float, float]:
    """Trains ``plan`` once: seconds until the first step, from there to the end, idle fraction."""
    began = time.perf_counter()
    first, busy = None, 0.0
    for report in train(plan):
        if first is None:
            first = time.perf_counter() - report.seconds
        busy += report.seconds
    assert first is not None
    seconds = time.perf_counter() - first
    return first - began, seconds, 1 - busy / seconds / len(plan.hardware.devices)


def measure(
    workload: Workload, population: int, hardware: Hardware, repeats: int, peak: float
) -> Row:
    """One population, trained ``repeats`` times after a first time, beside which some of its
    programs are still being compiled; that one counts only if there is no other."""
    agents, env = workload.agents(population), workload.env
    plan = make_plan(agents, workload.budget, env, hardware)
    jax.clear_caches()
    runs = [run_once(plan) for _ in range(1 + repeats)]
    timed = runs[1:] or runs
    seconds = statistics.median(run[1] for run in timed)
    flops = sum(operations(agent.configuration, env, workload.steps) for agent in agents)
    made = sum(updates(agent.configuration, workload.steps) for agent in agents)
    stats = [device.memory_stats() or {} for device in set(hardware.devices)]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return Row(
        population=population,
        compile_seconds=runs[0][0],
        seconds=tuple(run[1] for run in timed),
        idle_fraction=statistics.median(run[2] for run in timed),
        steps_per_second=population * workload.steps / seconds,
        updates_per_second=made / seconds,
        seconds_per_agent=seconds / population,
        flops_per_second=flops / seconds,
        peak_fraction=flops / seconds / peak,
        memory_bytes=plan.memory_bytes,
        device_peak_bytes=sum(peaks) if peaks else None,
    )


def populations(limit: float) -> list[int]:
    """1, 4, 16, … up to ``limit``."""
    sizes = [1]
    while sizes[-1] * 4 <= limit:
        sizes.append(sizes[-1] * 4)
    return sizes


def print_measurements(args: argparse.Namespace) -> None:
    """Prints the device's line, then a line for each population that the time allows."""
    end = time.perf_counter() + args.seconds
    hardware = configure(args.device)
    peak = matrix_product_peak(hardware)
    device = {
        "device": hardware.description,
        "platform": hardware.platform,
        "tile_width": hardware.tile_width,
        "matrix_product_flops_per_second": peak,
    }
    print(json.dumps(device), flush=True)
    with tempfile.TemporaryDirectory(prefix="jaxrl-bench-") as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        for population in args.populations or populations(2**20):
            row = measure(WORKLOADS[args.workload], population, hardware, args.repeats, peak)
            print(json.dumps(dataclasses.asdict(row)), flush=True)
            next_seconds = 4 * (1 + args.repeats) * statistics.median(row.seconds)
            if not args.populations and time.perf_counter() + next_seconds > end:
                break


def main() -> int:
    """The command; returns its exit code, 2 where the device is not there."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="w1")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument(
        "--populations", type=int, nargs="*", help="(1, 4, 16, … while time is left)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most (%(default)s)")
    args = parser.parse_args()
    try:
        print_measurements(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
