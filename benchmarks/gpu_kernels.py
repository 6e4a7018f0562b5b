"""Counts the kernels of W1's programs, compiled for a GPU on a machine that has none.

Needs the CUDA plugin (``pip install jax-cuda12-plugin nvidia-cuda-nvcc-cu12``, of jax's version) and
neither a card nor a driver. Prints, and writes as JSON, for an environment step and for an update:
kernels and copies, the bytes that copies move, branches and scatters. Counts can be relied on, times
cannot be had this way.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re

os.environ["JAX_PLATFORMS"] = "cpu"

from jax.experimental import topologies

from jaxrl.benchmark import machine
from jaxrl.benchmark.workloads import W1_STEPS, W1_VALUES
from jaxrl.dqn.environment import make
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.population.program import Programs
from jaxrl.population.tile import TileFunctions

HERE = pathlib.Path(__file__).parent
# Instructions that launch nothing.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("while", "conditional", "call", "optimization-barrier"),
}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")
_BYTES = {"pred": 1, "u32": 4, "s32": 4, "f32": 4}


def optimised(width: int, target: str) -> dict[str, str]:
    """The optimised HLO of W1's programs that act and that train too, for a target, a file of
    ``gpu_targets``."""
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        topology="1x1x1",
        target_config=(HERE / "gpu_targets" / f"{target}.txtpb").read_text(),
    )
    configuration = Configuration.create(W1_VALUES, W1_STEPS)
    env = make("CartPole-v1")
    sizes = width, configuration.buffer_size, 10, 10
    functions = TileFunctions(configuration.shape, env, *sizes, mixed=True)
    programs = Programs(functions, topology.devices[0])
    programs.compile("training")
    return {"environment step": programs.act.as_text(), "update": programs.train.as_text()}


def loop_bodies(text: str) -> list[list[str]]:
    """The lines of every computation that is a loop's body."""
    names = set(re.findall(r"body=%?([\w.\-]+)", text))
    bodies, lines = [], None
    for line in text.splitlines():
        header = re.match(r"%?([\w.\-]+) \(", line)
        if header:
            lines = [] if header[1] in names else None
        elif line.startswith("}"):
            if lines is not None:
                bodies.append(lines)
            lines = None
        elif lines is not None:
            lines.append(line)
    return bodies


def count(text: str) -> dict[str, int]:
    """Launches in a turn of a program's loop, of the one with the most: an update's where there are
    updates; and what the whole program has of branches and scatters."""
    bodies = [
        [match.groups() for match in map(_INSTRUCTION.match, body) if match]
        for body in loop_bodies(text)
    ]
    instructions = max(bodies, key=lambda body: sum(kind not in _FREE for _, kind in body))
    launched = collections.Counter(kind for _, kind in instructions if kind not in _FREE)
    copies = [shape for shape, kind in instructions if kind.startswith("copy")]
    return {
        "kernels": sum(launched.values()) - len(copies),
        "copies": len(copies),
        "copied_bytes": sum(map(_size, copies)),
        "branches": sum(" conditional(" in line for line in text.splitlines()),
        "scatters": sum(" scatter(" in line for line in text.splitlines()),
    }


def _size(shape: str) -> int:
    parts = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(_BYTES[kind] * math.prod(map(int, filter(None, d.split(",")))) for kind, d in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["h100", "t4"])
    parser.add_argument("--width", type=int, default=1024, help="agents of a tile (%(default)s)")
    parser.add_argument("--out", default=str(HERE / "results" / "gpu-kernels.json"))
    args = parser.parse_args()
    counts = {
        target: {name: count(text) for name, text in optimised(args.width, target).items()}
        for target in args.targets
    }
    result = {
        "what": f"W1, launches a turn, compiled for a GPU and not run; {args.width} agents",
        "machine": machine.describe(),
        "counts": counts,
    }
    pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
