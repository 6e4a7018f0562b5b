"""Runs measurements, ours and the peers', each in a process of its own."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from jaxrl.benchmark.workloads import W1_STEPS, W1_VALUES
from jaxrl.dqn.hyperparameters import Configuration
from jaxrl.errors import InputError
from jaxrl.population.devices import core_count

_PEERS = pathlib.Path(__file__).parent / "peers"


def measured(
    device: str, workload: str, *, populations: Sequence[int], repeats: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """What :mod:`jaxrl.benchmark.measure` prints, as it comes: the device, then each population.

    Raises:
        InputError: the device is not there.
        RuntimeError: the process failed, with the last line that it wrote.
    """
    command = [sys.executable, "-m", "jaxrl.benchmark.measure", "--device", device]
    command += ["--workload", workload, "--repeats", str(repeats), "--seconds", str(seconds)]
    if populations:
        command += ["--populations", *map(str, populations)]
    yield from _lines(command)


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another way to train W1's agents on the CPU."""

    name: str
    package: str
    script: str
    arguments: tuple[str, ...]

    def run(self, python: str) -> dict[str, Any] | None:
        """Its measurement, with ``seconds_per_agent``; nothing where ``python`` lacks the package.

        Raises:
            RuntimeError: it failed, with the last line that it wrote.
        """
        probe = (
            f"import importlib.util, sys; sys.exit(not importlib.util.find_spec('{self.package}'))"
        )
        if subprocess.run([python, "-c", probe], check=False).returncode:
            return None
        (result,) = _lines([python, str(_PEERS / self.script), *self.arguments])
        result["seconds_per_agent"] = result["seconds"][0] / result["agents"]
        return result


def peers() -> tuple[Peer, ...]:
    """rejax at two populations, and Stable-Baselines3 with a process for every core."""
    values = dataclasses.asdict(Configuration.create(W1_VALUES, W1_STEPS)) | {"learning_rate": 1e-3}
    rejax = ("--repeats", "1", "--agents")
    sb3 = (json.dumps(values), "--processes", str(core_count()))
    return (
        Peer("Stable-Baselines3, one process a core", "stable_baselines3", "sb3_w1.py", sb3),
        Peer("rejax, 16 agents", "rejax", "rejax_dqn.py", (*rejax, "16")),
        Peer("rejax, 64 agents", "rejax", "rejax_dqn.py", (*rejax, "64")),
    )


def _lines(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The lines of JSON that a process prints; a refusal (exit code 2) is one here too."""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith("{"):
                        yield json.loads(line)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            errors.seek(0)
            written = errors.read().strip().splitlines()
            last = written[-1] if written else f"exit code {process.returncode}"
            if process.returncode == 2:
                raise InputError(last.removeprefix("error: "))
            raise RuntimeError(last)
