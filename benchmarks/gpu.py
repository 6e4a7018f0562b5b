"""What a GPU machine says, all in one run of about five minutes: agreement, learning, speed, searches.

* agreement: agents of different cadence trained on the GPU and on the CPU, with products in float32;
* learning: the zoo's configuration, 64 seeds, beside Stable-Baselines3 (``learning.py``);
* speed: W1 in growing populations, on the CPU beside it, and one agent of Stable-Baselines3;
* searches: the README's line, cold and with its programs cached, and a thousand configurations of the
  hands-on-rl course's space;
* resume: a search that is killed and resumed, beside one that is not.

Writes what it has after every part: a machine that is lent can be taken back.
"""

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from jaxrl.benchmark import machine
from jaxrl.benchmark.processes import measured, peers

HERE = pathlib.Path(__file__).parent
POPULATIONS = (1, 64, 256, 1024, 4096)
SEARCH = ("--finalists", "5", "--final-seeds", "8")
COURSE = ("--space", "hands-on-rl", "--configs", "1000", "--steps", "30000", "--no-track")
SHORT = ("--configs", "64", "--steps", "20000", "--no-track", "--checkpoint-every", "0")
SOLVED = 475.0


def agreement() -> dict[str, Any]:
    """The largest difference of parameters after 600 steps; runs in a process of its own."""
    import jax
    import numpy as np

    from jaxrl.dqn.environment import make
    from jaxrl.dqn.hyperparameters import Configuration
    from jaxrl.population.devices import Hardware, configure
    from jaxrl.population.plan import Agent, Budget, make_plan
    from jaxrl.population.train import train

    gpu = configure("gpu")
    cpu = Hardware("cpu", (jax.devices("cpu")[0],), 4, 2**30)
    rng = np.random.default_rng(0)
    choices = {"train_freq": [1, 2, 4, 6, 8], "gradient_steps": [1, 2, 4], "batch_size": [8, 16]}
    agents = [
        Agent(
            Configuration.create(
                {name: int(rng.choice(values)) for name, values in choices.items()}
                | {"hidden_sizes": [16], "learning_starts": 50 + k, "double_q": k % 2 == 0},
                600,
            ),
            seed=k,
        )
        for k in range(24)
    ]
    trained = []
    for hardware in (gpu, cpu):
        params = {}
        plan = make_plan(agents, Budget(600, 300, 2, 2), make("CartPole-v1"), hardware)
        for report in train(plan):
            for lane, agent in enumerate(report.agents if report.params else ()):
                params[int(agent)] = [x[lane] for x in jax.tree.leaves(report.params["last"])]
        trained.append(params)
    on_gpu, on_cpu = trained
    gaps = [
        float(np.max(np.abs(a - b)))
        for k in on_cpu
        for a, b in zip(on_gpu[k], on_cpu[k], strict=True)
    ]
    return {"agents": len(agents), "largest_difference_of_parameters": max(gaps)}


def in_process(code: str, **env: str) -> Any:
    """What an expression of this module is, evaluated in a fresh process."""
    source = f"import json, gpu; print(json.dumps({code}))"
    where = {"PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", source]
    output = subprocess.run(
        command, env=os.environ | where | env, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def learning() -> dict[str, Any]:
    """The zoo's configuration on 64 seeds, without the single returns."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "zoo.json"
        command = [sys.executable, str(HERE / "learning.py"), "zoo", "--seeds", "64"]
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        (entry,) = json.loads(out.read_text())["configurations"]
    return {
        name: {k: v for k, v in entry[name].items() if k != "returns"}
        for name in ("jaxrl_last", "jaxrl_best_along_the_way", "stable_baselines3_last")
    }


def speed() -> dict[str, Any]:
    """W1 on the GPU and the CPU, and one agent of Stable-Baselines3."""
    gpu = measured("gpu", "w1", populations=POPULATIONS, repeats=1, seconds=0)
    cpu = measured("cpu", "w1", populations=(1, 64), repeats=1, seconds=0)
    result: dict[str, Any] = {"gpu": list(gpu), "cpu": list(cpu)}
    sb3 = peers()[0]
    one = dataclasses.replace(sb3, arguments=sb3.arguments[:1]).run(sys.executable)
    if one is not None:  # where it is installed
        result["stable_baselines3_one_agent"] = one
    return result


def search(folder: pathlib.Path, arguments: Sequence[str]) -> dict[str, Any]:
    """A sweep's time and results."""
    run_dir = folder / f"run-{time.monotonic_ns()}"
    began = time.perf_counter()
    with _sweep(run_dir, arguments) as process:
        output, _ = process.communicate()
    seconds = time.perf_counter() - began
    assert process.returncode == 0, output
    rows = _rows(run_dir / "results.csv")
    result = {
        "arguments": list(arguments),
        "seconds": seconds,
        "last_line_of_progress": [x for x in output.splitlines() if "steps/s" in x][-1],
        "configurations": len(rows),
        "at_475_or_more": sum(float(row["eval_return_mean"] or 0) >= SOLVED for row in rows),
        "environment_steps": sum(int(row["env_steps"]) for row in rows),
    }
    if (run_dir / "finalists.json").exists():
        result["finalists"] = json.loads((run_dir / "finalists.json").read_text())
    return result


def resumed(folder: pathlib.Path) -> dict[str, Any]:
    """Whether a sweep that is killed and resumed has the results of one that is not."""
    whole, killed = folder / "whole", folder / "killed"
    with _sweep(whole, SHORT) as process:
        process.communicate()
    with _sweep(killed, SHORT) as process:
        while not list(killed.glob("checkpoints/*")) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(1.0)
        process.send_signal(signal.SIGKILL)
    was_running = process.returncode == -signal.SIGKILL
    arguments = ["--resume", str(killed), "--no-track"]
    command = [sys.executable, "-m", "jaxrl.sweep", *arguments]
    subprocess.run(command, env=_environment(folder), check=True, stdout=subprocess.DEVNULL)
    pairs = list(zip(_rows(whole / "results.csv"), _rows(killed / "results.csv"), strict=True))
    return {
        "killed_while_it_trained": was_running,
        "configurations": len(pairs),
        "rows_that_are_the_same": sum(a == b for a, b in pairs),
    }


def _sweep(run_dir: pathlib.Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jaxrl.sweep", "--device", "gpu", "--run-dir", str(run_dir)]
    return subprocess.Popen(
        [*command, *arguments],
        env=_environment(run_dir.parent),
        cwd=run_dir.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _environment(folder: pathlib.Path) -> dict[str, str]:
    """With a cache of compiled programs that is empty at first, and then everybody's."""
    return os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}


def _rows(file: pathlib.Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "gpu.json")
    args = parser.parse_args()
    result: dict[str, Any] = {"what": "python benchmarks/gpu.py", "machine": machine.describe()}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        parts = {
            "search": lambda: search(folder, SEARCH),
            "search_cached": lambda: search(folder, SEARCH),
            "agreement": lambda: in_process(
                "gpu.agreement()", JAX_DEFAULT_MATMUL_PRECISION="float32"
            ),
            "resume": lambda: resumed(folder),
            "learning": learning,
            "speed": speed,
            "course": lambda: search(folder, COURSE),
        }
        for part, measure in parts.items():
            began = time.perf_counter()
            try:
                result[part] = measure()
            except (AssertionError, subprocess.CalledProcessError, RuntimeError) as error:
                result[part] = {"error": str(error)[-2000:]}
            print(f"{part}, {time.perf_counter() - began:.0f} s: {result[part]}", flush=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
