"""Nothing lost: sweeps that are killed, stopped and resumed."""

import os
import pathlib
import random
import subprocess
import sys
import time

import mlflow
import pytest

from jaxrl.sweep import main
from jaxrl.tracking.journal import read

pytest_plugins = ["mlflow_server"]
pytestmark = pytest.mark.usefixtures("compilation_cache")

SWEEP = [
    *["--configs", "24", "--seeds", "2", "--steps", "12000", "--eval-every", "1000"],
    *["--eval-episodes", "2", "--final-episodes", "5", "--set", "hidden_sizes=[32]"],
    *["--set", "buffer_size=5000"],  # below the steps: the ring turns
]
FAST = ["--checkpoint-every", "0.3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run directory of the sweep that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert main([*SWEEP, "--no-track", "--run-dir", str(directory)]) == 0
    return directory


def start(*arguments, cwd):
    with (pathlib.Path(cwd) / "output.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jaxrl.sweep", *map(str, arguments)],
            cwd=cwd,
            stdout=log,
            stderr=log,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "true"},
        )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended"
        time.sleep(0.02)


def records(run_dir):
    return [record for record, _ in read(run_dir / "journal")]


def evaluations(run_dir):
    return sum(record["kind"] == "evaluation" for record in records(run_dir))


def assert_same_results(run_dir, whole):
    assert (run_dir / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for rank in range(1, 6):
        for name in ("policy.json", "params.msgpack"):
            mine, theirs = (d / "best" / str(rank) / name for d in (run_dir, whole))
            assert mine.read_bytes() == theirs.read_bytes()


def assert_each_record_once(run_dir):
    seen = [
        (r["kind"], r["step"], a) for r in records(run_dir) if "agents" in r for a in r["agents"]
    ]
    assert len(seen) == len(set(seen)) == 48 * 13


def assert_mlflow_has_it(uri, experiment, run_dir):
    """Every point of the journal exactly once, every run finished."""
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    assert len(runs) == 25
    assert {run.info.status for run in runs} == {"FINISHED"}
    expected = {}
    for record in records(run_dir):
        if record["kind"] == "evaluation":
            for agent, value in zip(
                record["agents"], record["metrics"]["eval_return_mean"], strict=True
            ):
                expected.setdefault((agent // 2, record["step"]), []).append(value)
    for run in runs:
        if config := run.data.tags.get("jaxrl.config"):
            points = client.get_metric_history(run.info.run_id, "eval/return_mean")
            steps = [point.step for point in points]
            assert sorted(steps) == list(range(1000, 12001, 1000))
            for point in points:
                values = expected[int(config), point.step]
                assert point.value == pytest.approx(sum(values) / 2)
            assert "mean_reward" in run.data.metrics


def kill_and_resume(kills, uri, tmp_path, whole, seed):
    moments, run_dir = random.Random(seed), tmp_path / "run"
    where = ["--tracking-uri", uri, "--experiment", f"kills-{seed}-{kills}"]
    process = start(*SWEEP, *FAST, *where, "--run-dir", run_dir, cwd=tmp_path)
    wait_for((run_dir / "sweep.json").exists, process)
    for _ in range(kills):
        before = len(records(run_dir))
        more = moments.randrange(1, 14)
        wait_for(lambda: len(records(run_dir)) >= min(before + more, 150), process)  # noqa: B023
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.wait()
        process = start("--resume", run_dir, *FAST, *where[:2], cwd=tmp_path)
    assert process.wait(180) == 0, (tmp_path / "output.log").read_text()[-3000:]
    assert_same_results(run_dir, whole)
    assert_each_record_once(run_dir)
    assert_mlflow_has_it(uri, where[3], run_dir)


def test_a_sweep_that_is_killed_again_and_again_gives_the_same_numbers_once(
    mlflow_server, tmp_path, whole
):
    kill_and_resume(3, mlflow_server, tmp_path, whole, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills(mlflow_server, tmp_path, whole):
    kill_and_resume(20, mlflow_server, tmp_path, whole, seed=1)
