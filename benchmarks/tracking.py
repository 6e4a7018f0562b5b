"""What tracking costs: MLflow's ceiling against ours, requests, and what a bad server does to training.

Needs nothing but the package and its tests' real server and proxy. Everything runs in one call; what is
compared was measured in it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import mlflow
import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from mlflow_server import proxy_of, serve  # noqa: E402

from jaxrl.benchmark import machine  # noqa: E402
from jaxrl.tracking import projection  # noqa: E402
from jaxrl.tracking.journal import Journal, read  # noqa: E402
from jaxrl.tracking.mlflow_tracker import _CLIENT_SETTINGS  # noqa: E402

METRICS = ("eval_return_mean", "eval_return_std", "loss", "epsilon")
"""Four curves; the others are null."""


def make_run_dir(path: pathlib.Path, configs: int, evaluations: int, name: str) -> None:
    """The run directory of a finished sweep, as if it had been trained without a tracker."""
    path.mkdir()
    description = {
        "name": name,
        "sweep_id": f"{name}-{time.time()}",
        "experiment": name,
        "params": {"configs": configs},
        "configurations": [{"gamma": 0.99, "learning_rate": 1e-3, "batch_size": 64}] * configs,
        "configs": list(range(configs)),
        "seeds": list(range(configs)),
    }
    content = {"spec": {}, "versions": {}, "platform": "cpu", **description}
    (path / "sweep.json").write_text(json.dumps(content))
    journal, rng = Journal(path / "journal"), np.random.default_rng(0)
    journal.append("begin")
    for step in range(1, evaluations + 1):
        for start in range(0, configs, 4):
            agents = list(range(start, min(start + 4, configs)))
            metrics: dict = {key: [None] * len(agents) for key in projection.METRICS}
            metrics |= {key: rng.random(len(agents)).tolist() for key in METRICS}
            metrics["diverged"] = [False] * len(agents)
            journal.append("evaluation", step=1000 * step, agents=agents, metrics=metrics)
    for config in range(configs):
        metrics = {"last_mean": [1.0], "last_std": [0.0], "best_mean": [1.0], "best_std": [0.0]}
        journal.append("final", step=1000 * evaluations, agents=[config], metrics=metrics)
    journal.append("end", status="finished")
    journal.close()


def bare_client(uri: str, configs: int, evaluations: int) -> float:
    """Seconds of a client that makes the same runs, batches and endings and nothing else."""
    os.environ.update(_CLIENT_SETTINGS)
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment(f"bare-{time.time()}")
    points = [
        mlflow.entities.Metric(key, 0.5, 1_700_000_000_000 + step, 1000 * step)
        for step in range(1, evaluations + 1)
        for key in METRICS
    ]
    params = [mlflow.entities.Param(key, "1") for key in ("gamma", "learning_rate", "batch_size")]
    began = time.perf_counter()
    for config in range(configs):
        tags = {"mlflow.parentRunId": "none", "jaxrl.config": str(config), "jaxrl.sweep": "x"}
        run = client.create_run(experiment, tags=tags, run_name=f"config-{config:04d}")
        client.log_batch(run.info.run_id, metrics=points, params=params)
        client.set_terminated(run.info.run_id)
    return time.perf_counter() - began


def one_by_one(uri: str, points: int) -> float:
    """Seconds a point, with a request for each."""
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment(f"single-{time.time()}"))
    began = time.perf_counter()
    for step in range(points):
        client.log_metric(run.info.run_id, "x", 0.5, step=step)
    return (time.perf_counter() - began) / points


def sync(run_dir: pathlib.Path, uri: str, *options: str) -> tuple[float, int]:
    """Seconds from the first to the last request of ``jaxrl.sync``, and their number; seen by a
    proxy, so that the start of Python does not count."""
    moments = []
    with proxy_of(uri) as (address, proxy):
        forward = proxy.answer

        def answer(*args: object) -> tuple[int, bytes]:
            moments.append(time.perf_counter())
            try:
                return forward(*args)
            finally:
                moments.append(time.perf_counter())

        proxy.answer = answer
        command = [sys.executable, "-m", "jaxrl.sync", str(run_dir), "--tracking-uri", address]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        return moments[-1] - moments[0], len(proxy.calls)


def ceiling(configs: int, evaluations: int, folder: pathlib.Path) -> dict:
    """Our delivery of a finished sweep against the bare client's, in turns, through the same proxy."""
    ours, bare, requests = [], [], 0
    with serve(folder) as uri:
        for turn in range(2):
            with proxy_of(uri) as (address, _):
                bare.append(bare_client(address, configs, evaluations))
            run_dir = folder / f"run-{turn}"
            make_run_dir(run_dir, configs, evaluations, f"ours-{turn}")
            seconds, requests = sync(run_dir, uri)
            ours.append(seconds)
            print(
                f"bare {bare[-1]:.1f} s, ours {ours[-1]:.1f} s, {requests:,} requests", flush=True
            )
        single = one_by_one(uri, 500)
    points = configs * evaluations * len(METRICS)
    return {
        "configs": configs,
        "points": points,
        "bare_seconds": bare,
        "our_seconds": ours,
        "of_the_ceiling": min(bare) / min(ours),
        "requests": requests,
        "one_request_a_point_seconds": single * points,
        "times_as_fast_as_one_by_one": single * points / min(ours),
    }


def live_requests(uri: str, configs: int, steps: int, folder: pathlib.Path) -> dict:
    """Requests of a whole live sweep in the budget of ngrok's free plan."""
    with proxy_of(uri) as (address, proxy):
        seconds = train(folder, configs, steps, "--tracking-uri", address, *NGROK)
        kinds = {name: proxy.calls.count(name) for name in set(proxy.calls)}
        total = len(proxy.calls)
    print(f"{configs} configurations live in ngrok's budget: {total:,} requests", kinds, flush=True)
    return {"configs": configs, "seconds": seconds, "requests": total, "kinds": kinds}


NGROK = ("--tracker-requests-per-hour", "5000", "--experiment", "live")


def train(folder: pathlib.Path, configs: int, steps: int, *options: str) -> float:
    """Seconds of a sweep from its first evaluation to its last final one, by its journal."""
    run_dir = folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "jaxrl.sweep",
        "--configs",
        str(configs),
        "--steps",
        str(steps),
    ]
    command += ["--run-dir", str(run_dir), "--set", "train_freq=8", "--set", "gradient_steps=4"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    finished = run_dir / "results.csv"
    is_awaited = "--tracker-requests-per-hour" in options
    while process.poll() is None and (is_awaited or not finished.exists()):
        time.sleep(0.2)
    process.terminate()  # a server that does not answer is not waited for
    process.wait()
    times = [
        r["time"] for r, _ in read(run_dir / "journal") if r["kind"] in ("evaluation", "final")
    ]
    return (times[-1] - times[0]) / 1000


@contextlib.contextmanager
def servers(folder: pathlib.Path):
    """Addresses of servers, bad and good."""
    with (
        serve(folder) as uri,
        proxy_of(uri) as (slow, one),
        proxy_of(uri) as (failing, two),
        proxy_of(uri) as (silent, three),
    ):
        one.seconds = 2.0
        two.fail_every = 3
        forward = three.answer

        def fall_silent(*args: object) -> tuple[int, bytes]:
            if not str(args[1]).partition("?")[0].endswith(("get-by-name", "experiments/create")):
                time.sleep(3600)
            return forward(*args)

        three.answer = fall_silent
        yield {
            "no tracking": ("--no-track",),
            "a good server": ("--tracking-uri", uri),
            "2 s a request": ("--tracking-uri", slow),
            "500 one time in three": ("--tracking-uri", failing),
            "no answer": ("--tracking-uri", silent),
        }


def slowdown(folder: pathlib.Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of the same sweep with each server, in turns."""
    seconds: dict[str, list[float]] = {}
    with servers(folder) as options:
        for _ in range(rounds):
            for name, arguments in options.items():
                seconds.setdefault(name, []).append(train(folder, 128, 20_000, *arguments))
                print(name, f"{seconds[name][-1]:.1f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(HERE / "results" / "tracking.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "a").mkdir(), (folder / "b").mkdir(), (folder / "c").mkdir()
        result = {
            "what": "delivery to a local MLflow server, and training beside bad ones",
            "machine": machine.describe(),
            "ceiling": ceiling(args.configs, 50, folder / "a"),
        }
        seconds = slowdown(folder / "b", args.rounds)
        best = min(seconds["no tracking"])
        result["training_seconds"] = seconds
        result["times_of_no_tracking"] = {n: min(s) / best for n, s in seconds.items()}
        with serve(folder / "c") as uri:
            result["live"] = live_requests(uri, args.configs, 20_000, folder / "c")
    pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "machine"}, indent=1))


if __name__ == "__main__":
    main()
