"""Delivery whatever happens to the server, and ``python -m jaxrl.sync``."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from mlflow_server import free_port, serve
from test_resume import SWEEP, assert_mlflow_has_it, evaluations, start, wait_for

from jaxrl.rundir import RunDirectory
from jaxrl.sweep import main
from jaxrl.sync import main as sync
from jaxrl.tracking.delivery import Delivery
from jaxrl.tracking.session import address

pytest_plugins = ["mlflow_server"]
pytestmark = pytest.mark.usefixtures("compilation_cache")


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    """A finished sweep that nobody was told of; its experiment is ``jaxrl``."""
    directory = tmp_path_factory.mktemp("untracked") / "run"
    assert main([*SWEEP, "--no-track", "--run-dir", str(directory)]) == 0
    return directory


def copy(run_dir, tmp_path, experiment):
    """The same sweep with an experiment and an identity of its own."""
    subprocess.run(["cp", "-r", str(run_dir), str(tmp_path / "run")], check=True)
    path = tmp_path / "run" / "sweep.json"
    content = json.loads(path.read_text())
    changes = {"experiment": experiment, "sweep_id": experiment}
    path.write_text(json.dumps({**content, **changes}))
    return tmp_path / "run"


def runs_of(uri, experiment):
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], max_results=1000)


def test_an_untracked_sweep_is_sent_later_and_to_a_second_server(
    untracked, mlflow_server, tmp_path, capsys
):
    run_dir = copy(untracked, tmp_path, "later")
    for uri in (mlflow_server, f"sqlite:///{tmp_path / 'second.db'}"):
        assert sync([str(run_dir), "--tracking-uri", uri]) == 0
        assert "everything has arrived" in capsys.readouterr().out
        assert_mlflow_has_it(uri, "later", run_dir)


def test_sent_again_it_sends_nothing(untracked, mlflow_proxy, tmp_path):
    uri, proxy = mlflow_proxy
    run_dir = copy(untracked, tmp_path, "again")
    assert sync([str(run_dir), "--tracking-uri", uri]) == 0
    before = len(proxy.calls)
    assert sync([str(run_dir)]) == 0  # where it went before
    assert not {"create", "log-batch", "update"} & set(proxy.calls[before:])


def test_lines_and_console_are_trackers_too(untracked, tmp_path, capsys):
    run_dir = copy(untracked, tmp_path, "lines")
    assert sync([str(run_dir), "--tracking-uri", f"jsonl:{tmp_path / 'x.jsonl'}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert {line.get("config") for line in lines} == {None, *range(12)}
    assert sync([str(run_dir), "--tracking-uri", "console:"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("sweep: ") and line.endswith(", finished") for line in shown)
    assert any(line.startswith("config 5: ") and "mean_reward" in line for line in shown)


def test_resuming_what_is_finished_sends_what_its_tracker_has_missed(untracked, tmp_path, capsys):
    run_dir = copy(untracked, tmp_path, "finished")
    where = ["--tracking-uri", f"jsonl:{tmp_path / 'x.jsonl'}"]
    assert main(["--resume", str(run_dir), *where]) == 0
    assert "is finished: nothing is left to train" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert {line.get("config") for line in lines} == {None, *range(12)}
    assert main(["--resume", str(run_dir)]) == 0  # where it went before: nothing is missing
    after = (tmp_path / "x.jsonl").read_text().splitlines()[len(lines) :]
    assert all("artifact" in json.loads(line) for line in after)


@pytest.mark.parametrize(("track", "runs"), [("top:3", 4), ("parent", 1)])
def test_few_configurations_get_a_run(track, runs, untracked, mlflow_server, tmp_path):
    run_dir = copy(untracked, tmp_path, track)
    assert sync([str(run_dir), "--tracking-uri", mlflow_server, "--track", track]) == 0
    sent = runs_of(mlflow_server, track)
    assert len(sent) == runs
    client = mlflow.MlflowClient(mlflow_server)
    (parent,) = [run for run in sent if "jaxrl.config" not in run.data.tags]
    table = client.download_artifacts(parent.info.run_id, "results.csv")
    assert pathlib.Path(table).read_bytes() == (run_dir / "results.csv").read_bytes()


def test_what_is_sent_later_is_what_was_begun(mlflow_server, tmp_path, monkeypatch):
    """Which configurations get a run, and a file, are remembered."""
    monkeypatch.chdir(tmp_path)
    where = ["--tracking-uri", mlflow_server, "--experiment", "remembered", "--track", "top:2"]
    assert main([*SWEEP, *where, "--run-dir", "run"]) == 0
    assert sync(["run"]) == 0
    assert len(runs_of(mlflow_server, "remembered")) == 3
    assert sync(["run", "--tracking-uri", "jsonl:lines.jsonl"]) == 0
    before = len((tmp_path / "lines.jsonl").read_text().splitlines())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sync([str(tmp_path / "run")]) == 0
    assert not list((tmp_path / "elsewhere").iterdir())
    after = (tmp_path / "lines.jsonl").read_text().splitlines()[before:]
    names = [path.name for path in RunDirectory(tmp_path / "run").attachments]
    assert names == ["results.csv", "sweep.json", "report.html", "curves.png", "importances.png"]
    assert [json.loads(line).get("artifact") for line in after] == names


def test_where_it_goes_on_is_where_it_was_but_for_a_connection_string(tmp_path, monkeypatch):
    Delivery(tmp_path, "http://before").write()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://else")
    assert address(None, tmp_path) == "http://before"
    assert address(None, tmp_path / "never") == "http://else"
    monkeypatch.setenv("JAXRL_TRACKING_URI", "http://now")
    assert address(None, tmp_path) == "http://now"
    assert address("http://given", tmp_path) == "http://given"


def test_a_lost_answer_to_a_creation_makes_no_second_run(untracked, mlflow_proxy, tmp_path):
    uri, proxy = mlflow_proxy
    run_dir = copy(untracked, tmp_path, "lost answer")
    forward, lost = proxy.answer, []

    def lose(method, path, kind, body):
        answer = forward(method, path, kind, body)
        if path.endswith("runs/create") and len(lost) < 3:
            lost.append(path)
            return 502, b"lost on the way back"
        return answer

    proxy.answer = lose
    assert sync([str(run_dir), "--tracking-uri", uri]) == 0
    assert len(lost) == 3
    assert_mlflow_has_it(uri, "lost answer", run_dir)


def test_a_run_that_its_owner_deleted_is_left_alone_and_said(
    untracked, mlflow_server, tmp_path, capsys
):
    run_dir = copy(untracked, tmp_path, "deleted run")
    journal = run_dir / "journal" / "000000.jsonl"
    content = journal.read_text()
    lines = content.splitlines(keepends=True)
    journal.write_text("".join(lines[: len(lines) // 2]))
    assert sync([str(run_dir), "--tracking-uri", mlflow_server]) == 0
    assert "the sweep has not ended" in capsys.readouterr().out
    client = mlflow.MlflowClient(mlflow_server)
    (victim,) = [
        run
        for run in runs_of(mlflow_server, "deleted run")
        if run.data.tags.get("jaxrl.config") == "5"
    ]
    client.delete_run(victim.info.run_id)
    journal.write_text(content)
    assert sync([str(run_dir)]) == 0
    assert "the run of config 5 was deleted" in capsys.readouterr().out
    left = runs_of(mlflow_server, "deleted run")
    assert len(left) == 12
    assert {run.info.status for run in left} == {"FINISHED"}


def test_a_deleted_experiment_is_said_once_and_training_goes_on(mlflow_server, tmp_path):
    run_dir = tmp_path / "run"
    where = ["--tracking-uri", mlflow_server, "--experiment", "deleted under it"]
    process = start(*SWEEP, *where, "--run-dir", run_dir, cwd=tmp_path)
    client = mlflow.MlflowClient(mlflow_server)
    wait_for(lambda: evaluations(run_dir) >= 10, process)
    client.delete_experiment(client.get_experiment_by_name("deleted under it").experiment_id)
    assert process.wait(180) == 0
    output = (tmp_path / "output.log").read_text()
    assert "did not receive everything (refused: the sweep's experiment or parent run" in output
    assert f"python -m jaxrl.sync {run_dir}" in output
    assert (run_dir / "best" / "1").exists()


@pytest.mark.slow
def test_a_server_that_is_killed_three_times_misses_nothing(tmp_path):
    """The last time for longer than the sweep lasts."""
    port, folder, run_dir = free_port(), tmp_path / "server", tmp_path / "run"
    folder.mkdir()
    where = ["--tracking-uri", f"http://127.0.0.1:{port}", "--experiment", "restarts"]
    slow = ["--steps", "40000", "--eval-every", "1000"]
    sweep = [*SWEEP[:4], *slow, *SWEEP[8:]]
    process = None
    for evaluated in (3, 30, 75):
        with serve(folder, port):
            process = process or start(*sweep, *where, "--run-dir", run_dir, cwd=tmp_path)
            wait_for(lambda: evaluations(run_dir) >= evaluated, process)  # noqa: B023
            time.sleep(0.5)
    wait_for((run_dir / "results.csv").exists, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)  # not to wait a minute for the server
    assert process.wait(30) == 0
    output = (tmp_path / "output.log").read_text()
    assert "did not receive everything" in output
    assert f"python -m jaxrl.sync {run_dir}" in output
    with serve(folder, port) as uri:
        assert sync([str(run_dir)]) == 0
        runs = runs_of(uri, "restarts")
        assert len(runs) == 13
        assert {run.info.status for run in runs} == {"FINISHED"}
        client = mlflow.MlflowClient(uri)
        for run in runs:
            if "jaxrl.config" in run.data.tags:
                points = client.get_metric_history(run.info.run_id, "eval/return_mean")
                assert sorted(p.step for p in points) == list(range(1000, 40001, 1000))


def test_a_resume_warns_and_trains_where_the_tracker_is_away(untracked, tmp_path, capsys):
    run_dir = tmp_path / "run"
    (run_dir / "journal").mkdir(parents=True)
    (run_dir / "sweep.json").write_bytes((untracked / "sweep.json").read_bytes())
    script = (
        "import sys, jaxrl.generations as g; g.DRAIN_SECONDS = 1.0; "
        "from jaxrl.sweep import main; sys.exit(main(sys.argv[1:]))"
    )
    where = ["--tracking-uri", f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(
        [sys.executable, "-c", script, "--resume", str(run_dir), *where],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0
    assert "did not receive everything" in done.stdout
    assert (run_dir / "results.csv").read_bytes() == (untracked / "results.csv").read_bytes()


def test_what_cannot_be_synced_is_refused(tmp_path, untracked, capsys):
    assert sync([str(tmp_path)]) == 2
    assert "no run directory" in capsys.readouterr().err
    closed = f"http://127.0.0.1:{free_port()}"
    assert sync([str(untracked), "--tracking-uri", closed]) == 2
    assert "cannot be used" in capsys.readouterr().err
