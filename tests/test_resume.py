"""Nothing lost: sweeps that are killed, stopped and resumed."""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from processes import start, wait_for

from jaxrl.sweep import main
from jaxrl.tracking.journal import read

pytest_plugins = ["mlflow_server"]
pytestmark = pytest.mark.usefixtures("compilation_cache")

SWEEP = [
    *["--configs", "12", "--seeds", "2", "--steps", "12000", "--eval-every", "1000"],
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


def records(run_dir):
    return [record for record, _ in read(run_dir / "journal")]


def evaluations(run_dir):
    return sum(record["kind"] == "evaluation" for record in records(run_dir))


def assert_same_results(run_dir, whole):
    assert (run_dir / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for rank in range(1, 6):
        for name in ("policy.json", "params.safetensors"):
            mine, theirs = (d / "best" / str(rank) / name for d in (run_dir, whole))
            assert mine.read_bytes() == theirs.read_bytes()


def assert_each_record_once(run_dir):
    seen = [
        (r["kind"], r["step"], a) for r in records(run_dir) if "agents" in r for a in r["agents"]
    ]
    assert len(seen) == len(set(seen)) == 24 * 13


def assert_mlflow_has_it(uri, experiment, run_dir):
    """Every point of the journal exactly once, every run finished."""
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    assert len(runs) == 13
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
        more = moments.randrange(1, 8)
        wait_for(lambda: len(records(run_dir)) >= min(before + more, 75), process)  # noqa: B023
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
    kill_and_resume(2, mlflow_server, tmp_path, whole, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills(mlflow_server, tmp_path, whole):
    kill_and_resume(20, mlflow_server, tmp_path, whole, seed=1)


def test_sigterm_leaves_soon_with_a_checkpoint_and_goes_on_where_it_was(tmp_path, whole):
    run_dir = tmp_path / "run"
    process = start(*SWEEP, "--no-track", "--run-dir", run_dir, cwd=tmp_path)
    wait_for(lambda: evaluations(run_dir) >= 15, process)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 10
    *_, last = records(run_dir)
    assert (last["kind"], last["status"]) == ("end", "killed")
    assert list((run_dir / "checkpoints").glob("state-*.npz"))
    assert not (run_dir / "heartbeat.json").exists()
    before = len(records(run_dir))
    assert main(["--resume", str(run_dir), "--no-track"]) == 0
    again = records(run_dir)[before:]
    assert min(r["step"] for r in again if r["kind"] == "evaluation") > 1000, "it began anew"
    assert_same_results(run_dir, whole)
    assert_each_record_once(run_dir)


def test_a_damaged_journal_is_told_of_and_what_it_lost_is_trained_again(tmp_path, whole, capsys):
    run_dir = tmp_path / "run"
    process = start(*SWEEP, *FAST, "--no-track", "--run-dir", run_dir, cwd=tmp_path)
    folder, segment = run_dir / "checkpoints", run_dir / "journal" / "000000.jsonl"
    wait_for(lambda: list(folder.glob("state-*.npz")) and evaluations(run_dir) >= 5, process)
    process.kill()
    process.wait()
    lines = segment.read_bytes().splitlines(keepends=True)
    lost = next(i for i, line in enumerate(lines) if b'"evaluation"' in line)
    lines[lost] = lines[lost].replace(b":", b"?")
    segment.write_bytes(b"".join(lines))
    assert main(["--resume", str(run_dir), "--no-track"]) == 0
    place = len(b"".join(lines[:lost]))
    assert f"is damaged (segment 0, byte {place:,})" in capsys.readouterr().out
    (kept,) = segment.parent.glob("000000.jsonl-*.damaged")
    assert kept.read_bytes() == b"".join(lines)
    assert_same_results(run_dir, whole)
    assert_each_record_once(run_dir)


def test_without_a_checkpoint_it_begins_anew_and_the_first_records_stand(tmp_path, whole):
    run_dir = tmp_path / "run"
    process = start(*SWEEP, "--no-track", "--run-dir", run_dir, cwd=tmp_path)
    wait_for(lambda: evaluations(run_dir) >= 15, process)
    process.kill()
    process.wait()
    before = records(run_dir)
    assert main(["--resume", str(run_dir), "--no-track"]) == 0
    assert records(run_dir)[: len(before)] == before
    assert_same_results(run_dir, whole)
    assert_each_record_once(run_dir)


def test_a_half_written_checkpoint_is_skipped_for_the_one_before(tmp_path, whole, capsys):
    run_dir = tmp_path / "run"
    process = start(*SWEEP, *FAST, "--no-track", "--run-dir", run_dir, cwd=tmp_path)
    folder = run_dir / "checkpoints"
    wait_for(lambda: len(list(folder.glob("state-*.npz"))) >= 2, process)
    process.kill()
    process.wait()
    *_, newest = sorted(folder.glob("state-*.npz"))
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    (folder / "state-999999.npz.part").write_bytes(b"half")
    assert main(["--resume", str(run_dir), "--no-track"]) == 0
    said = f"warning: checkpoint {newest.name} cannot be read: training again from an earlier one"
    assert said in capsys.readouterr().out
    assert_same_results(run_dir, whole)


def test_a_finished_sweep_says_so(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main(["--resume", str(whole), "--no-track"]) == 0
    assert "is finished: nothing is left to train" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert {p: t for p, t in after.items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_a_second_process_on_a_run_directory_is_refused(tmp_path, capsys):
    run_dir = tmp_path / "run"
    endless = ["--configs", "2", "--steps", "100000000", "--set", "buffer_size=1000"]
    process = start(*endless, "--no-track", "--run-dir", run_dir, cwd=tmp_path)
    try:
        wait_for((run_dir / "heartbeat.json").exists, process)
        assert main(["--resume", str(run_dir), "--no-track"]) == 2
        assert f"process {process.pid}" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "just_made",
    ["generations.Lease", "generations.Journal", "training.Checkpoints", "training.train"],
)
def test_a_run_directory_that_is_taken_away_ends_the_sweep_with_a_clear_error(
    just_made, tmp_path, monkeypatch, capsys
):
    run_dir = tmp_path / "run"
    module, name = just_made.split(".")
    make = getattr(importlib.import_module(f"jaxrl.{module}"), name)

    def make_and_take_away(*args, **kwargs):
        made = make(*args, **kwargs)
        run_dir.rename(tmp_path / "elsewhere")
        return made

    monkeypatch.setattr(f"jaxrl.{module}.{name}", make_and_take_away)
    monkeypatch.setattr("jaxrl.lease._BEAT_SECONDS", 0.1)
    endless = ["--configs", "2", "--steps", "100000000", "--set", "buffer_size=1000"]
    assert main([*endless, "--no-track", "--run-dir", str(run_dir)]) == 1
    assert f"the run directory {run_dir} is gone" in capsys.readouterr().err
    assert not run_dir.exists()


REFUSED = {
    "other steps": (["--steps", "700"], "steps is 12000 there and 700 here"),
    "other values": (["--set", "gamma=0.5"], '"gamma": 0.5'),
    "other space": (["--space", "hands-on-rl"], 'space is "cartpole" there'),
    "other experiment": (["--experiment", "mine"], 'experiment is "jaxrl" there'),
    "a run directory": (["--run-dir", "x"], "leave --run-dir out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_resume_with_another_specification_is_refused_with_the_difference(
    name, whole, capsys, monkeypatch
):
    arguments, message = REFUSED[name]
    monkeypatch.setattr("jaxrl.training.train", lambda *_: pytest.fail("something was trained"))
    assert main(["--resume", str(whole), "--no-track", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_same_specification_may_be_said_again(whole, capsys):
    assert main(["--resume", str(whole), "--no-track", *SWEEP]) == 0


def copy_without_end(whole, tmp_path):
    """A run directory of the same sweep in which nothing has been trained yet."""
    run_dir = tmp_path / "run"
    (run_dir / "journal").mkdir(parents=True)
    (run_dir / "sweep.json").write_bytes((whole / "sweep.json").read_bytes())
    return run_dir


def test_a_sweep_of_another_platform_is_refused(whole, tmp_path, capsys):
    run_dir = copy_without_end(whole, tmp_path)
    content = json.loads((run_dir / "sweep.json").read_text())
    (run_dir / "sweep.json").write_text(json.dumps({**content, "platform": "gpu"}))
    assert main(["--resume", str(run_dir), "--no-track"]) == 2
    assert "was trained on a gpu" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_what_is_no_run_directory_is_refused(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    assert main(["--resume", str(tmp_path), "--no-track"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no run directory" in error if content is None else "cannot be used" in error


def limited(size, *arguments, cwd):
    """Starts a sweep that cannot make a file larger than ``size`` bytes, as on a full disk."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        "from jaxrl.sweep import main; sys.exit(main(sys.argv[1:]))"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=env,
        timeout=180,
        check=False,
    )


def test_a_full_disk_ends_the_sweep_with_a_clear_error_and_it_can_go_on(tmp_path, whole):
    run_dir = tmp_path / "run"
    done = limited(40_000, *SWEEP, "--no-track", "--run-dir", run_dir, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be written to: file too large" in done.stderr
    assert f"--resume {run_dir}" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(records(run_dir)) > 3, "what was written is still to be read"
    assert main(["--resume", str(run_dir), "--no-track"]) == 0
    assert_same_results(run_dir, whole)
    assert_each_record_once(run_dir)


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_warned_of_and_training_goes_on(tmp_path, whole):
    run_dir = tmp_path / "run"
    arguments = [*SWEEP, *FAST, "--no-track", "--run-dir", run_dir]
    done = limited(400_000, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_results(run_dir, whole)
