"""The command, from its arguments to the run directory and to MLflow."""

import csv
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from run_dirs import rows

from jaxrl.dqn.hyperparameters import NAMES
from jaxrl.policy import load_policy
from jaxrl.sweep import main
from jaxrl.tracking.journal import read

pytest_plugins = ["mlflow_server"]
pytestmark = pytest.mark.usefixtures("compilation_cache")

QUICK = [
    *["--steps", "600", "--eval-every", "100", "--eval-episodes", "2", "--final-episodes", "5"],
    *["--set", "hidden_sizes=[8]", "--set", "learning_starts=50", "--set", "batch_size=8"],
]


@pytest.fixture(scope="module")
def tracked(mlflow_server, tmp_path_factory):
    """A finished sweep of 6 configurations with 2 seeds each, tracked by a real server."""
    run_dir = tmp_path_factory.mktemp("tracked") / "run"
    where = ["--tracking-uri", mlflow_server, "--experiment", "end-to-end"]
    code = main([*QUICK, "--configs", "6", "--seeds", "2", "--run-dir", str(run_dir), *where])
    assert code == 0
    return run_dir


def runs_of(uri, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, parents, [run for run in runs if run not in parents]


def test_every_configuration_has_a_nested_run_with_its_parameters(tracked, mlflow_server):
    _, parents, children = runs_of(mlflow_server, "end-to-end")
    assert len(parents) == 1
    assert len(children) == 6
    by_config = {int(run.data.tags["jaxrl.config"]): run for run in children}
    for row in rows(tracked / "results.csv"):
        run = by_config[int(row["config"])]
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.info.status == "FINISHED"
        assert {name: run.data.params[name] for name in NAMES} == {n: row[n] for n in NAMES}
        assert run.data.params["seeds"] == "[0, 1]"


def test_every_metric_arrives_at_every_evaluation_step_averaged_over_seeds(tracked, mlflow_server):
    client, _, children = runs_of(mlflow_server, "end-to-end")
    description = json.loads((tracked / "sweep.json").read_text())
    expected = {}
    for record, _ in read(tracked / "journal"):
        if record["kind"] == "evaluation":
            for place, agent in enumerate(record["agents"]):
                key = description["configs"][agent], record["step"]
                expected.setdefault(key, []).append(record["metrics"]["eval_return_mean"][place])
    for run in children:
        config = int(run.data.tags["jaxrl.config"])
        points = client.get_metric_history(run.info.run_id, "eval/return_mean")
        assert [point.step for point in points] == [100, 200, 300, 400, 500, 600]
        for point in points:
            assert point.value == pytest.approx(np.mean(expected[config, point.step]))
        for name in ("episode_return", "loss", "epsilon", "q_mean", "grad_norm"):
            assert client.get_metric_history(run.info.run_id, f"train/{name}")[-1].step == 600
        assert len(client.get_metric_history(run.info.run_id, "eval/return_std")) == 6


def test_the_final_scores_are_those_of_results_csv(tracked, mlflow_server):
    _, _, children = runs_of(mlflow_server, "end-to-end")
    table = rows(tracked / "results.csv")
    for run in children:
        own = [row for row in table if row["config"] == run.data.tags["jaxrl.config"]]
        for metric, column in (
            ("mean_reward", "eval_return_mean"),
            ("std_reward", "eval_return_std"),
        ):
            expected = np.mean([float(row[column]) for row in own])
            assert run.data.metrics[metric] == pytest.approx(expected)


def test_the_parent_has_the_specification_the_curves_and_the_results(tracked, mlflow_server):
    client, (parent,), _ = runs_of(mlflow_server, "end-to-end")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["steps"] == "600"
    assert parent.data.params["set.hidden_sizes"] == "[8]"
    for name in ("best", "median", "iqm"):
        points = client.get_metric_history(parent.info.run_id, f"population/eval_return_{name}")
        assert [point.step for point in points] == [100, 200, 300, 400, 500, 600]
    path = pathlib.Path(client.download_artifacts(parent.info.run_id, "results.csv"))
    assert path.read_text() == (tracked / "results.csv").read_text()


def test_results_csv_has_a_row_an_agent_in_order(tracked):
    table = rows(tracked / "results.csv")
    assert [(row["config"], row["seed"]) for row in table] == [
        (str(config), str(seed)) for config in range(6) for seed in range(2)
    ]
    for row in table:
        assert row["status"] == "finished"
        assert row["env_steps"] == "600"
        assert row["eval_episodes"] == "5"
        assert 1 <= float(row["eval_return_mean"]) <= 500
        assert float(row["best_return_mean"]) >= 1


def test_the_best_policies_are_saved_and_act(tracked):
    table = rows(tracked / "results.csv")
    policies = [load_policy(tracked / "best" / str(rank)) for rank in range(1, 6)]
    scores = [policy.scores["eval_return_mean"] for policy in policies]
    assert scores == sorted((float(row["eval_return_mean"]) for row in table), reverse=True)[:5]
    assert policies[0].act(np.zeros((3, 4))).shape == (3,)


def test_a_row_alone_reproduces_itself_to_the_bit(tracked, tmp_path):
    row = rows(tracked / "results.csv")[7]
    table = tmp_path / "one.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    arguments = [*QUICK[:8], "--config-table", str(table), "--no-track"]
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0
    (again,) = rows(tmp_path / "run" / "results.csv")
    assert {**again, "config": row["config"]} == row


def test_the_same_command_gives_the_same_results_file(tmp_path):
    arguments = [*QUICK, "--configs", "5", "--sampler", "sobol", "--no-track", "--seed", "3"]
    for name in ("one", "two"):
        assert main([*arguments, "--run-dir", str(tmp_path / name)]) == 0
    first, second = (tmp_path / name / "results.csv" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_a_diverged_configuration_is_flagged_and_nothing_infinite_is_sent(mlflow_server, tmp_path):
    table = tmp_path / "table.json"
    bad = {"learning_rate": 1e30, "huber_delta": math.inf}
    table.write_text(json.dumps([{"learning_rate": 1e-3}, bad], allow_nan=True))
    where = ["--tracking-uri", mlflow_server, "--experiment", "diverged"]
    arguments = [*QUICK, "--config-table", str(table), *where]
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0
    sound, diverged = rows(tmp_path / "run" / "results.csv")
    assert (sound["status"], diverged["status"]) == ("finished", "diverged")
    assert diverged["eval_return_mean"] == "nan"
    assert diverged["diverged"] == "true"
    _, _, children = runs_of(mlflow_server, "diverged")
    for run in children:
        assert ("diverged" in run.data.tags) == (run.data.tags["jaxrl.config"] == "1")
        assert all(abs(value) < 1e300 for value in run.data.metrics.values())


def test_a_warm_up_that_never_ends_is_warned_of(tmp_path, capsys):
    arguments = [*QUICK, "--set", "learning_starts=600", "--configs", "2", "--no-track"]
    assert main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0
    assert "2 of 2 configurations never train" in capsys.readouterr().out
    assert all(row["updates"] == "0" for row in rows(tmp_path / "run" / "results.csv"))


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--space", "hands-on-rl", "--configs", "256", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "256 agents of 50,000 steps each, in 48 cohorts" in output
    assert "programs: 4 for training" in output
    assert not list(tmp_path.iterdir())


BAD = {
    "unknown hyperparameter": (["--set", "learning_rat=1"], "did you mean 'learning_rate'?"),
    "value out of range": (["--set", "gamma=1.5"], "gamma is 1.5; it must be a number, 0 or more"),
    "no assignment": (["--set", "gamma"], "write NAME=VALUE"),
    "unknown space": (["--space", "cartpol"], "did you mean 'cartpole'?"),
    "missing space file": (["--space", "none.yaml"], "cannot read the space file none.yaml"),
    "space with a typo": (["--space", "typo.yaml"], "'hgih': did you mean 'high'?"),
    "unknown environment": (["--env", "CartPole-v2"], "did you mean 'CartPole-v1'?"),
    "continuous environment": (["--env", "Pendulum-v1"], "a DQN needs discrete actions"),
    "missing table": (["--config-table", "none.csv"], "cannot read the table none.csv"),
    "empty table": (["--config-table", "empty.csv"], "has no configuration"),
    "ragged table": (["--config-table", "ragged.csv"], "is ragged"),
    "unknown column": (["--config-table", "column.csv"], "unknown column 'gama'"),
    "seed column and seeds": (["--config-table", "seed.csv", "--seeds", "2"], "seed column"),
    "table and configs": (["--config-table", "seed.csv", "--configs", "2"], "give one of the two"),
    "no configurations": (["--configs", "0"], "configs is 0; it must be 1 or more"),
    "no steps": (["--steps", "0"], "steps is 0; it must be 1 or more"),
    "not a number": (["--steps", "many"], "invalid int value: 'many'"),
    "unknown option": (["--stepz", "5"], "unrecognized arguments: --stepz"),
    "negative seed": (["--seed", "-1"], "seed is -1"),
    "too much memory": (
        ["--configs", "1", "--steps", "2000000000", "--set", "buffer_size=2000000000"],
        "of memory and",
    ),
    "too much memory for a batch": (
        ["--configs", "1", "--steps", "200", "--set", "batch_size=2000000000"],
        "or batch_size",
    ),
    "too many agents": (["--configs", "99999999999"], "more than 1,000,000 agents"),
    "too many episodes": (["--final-episodes", "99999999999"], "1,000,000 is the most"),
    "table and space": (["--config-table", "seed.csv", "--space", "cartpole"], "one of the two"),
    "more than float32 holds": (["--set", "max_grad_norm=1e39"], "max_grad_norm is"),
    "less than float32 holds": (["--set", "learning_rate=1e-60"], "learning_rate is"),
    "folder as tracking URI": (["--tracking-uri", "garbage"], "'garbage' names a folder"),
    "experiment without a name": (
        ["--tracking-uri", "sqlite:///unused.db", "--experiment", " "],
        "--experiment is empty",
    ),
    "existing run directory, dry": (["--run-dir", "existing", "--dry-run"], "exists"),
    "two minds about tracking": (
        ["--tracking-uri", "sqlite:///unused.db", "--no-track"],
        "--no-track contradicts --tracking-uri",
    ),
    "lines without a file": (["--tracking-uri", "jsonl:"], "lacks the file"),
    "unreachable server": (["--tracking-uri", "http://127.0.0.1:9"], "with --no-track"),
    "existing run directory": (["--run-dir", "existing"], "exists"),
    "no gpu": (["--device", "gpu"], "JAX sees no GPU"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line_before_anything_is_compiled_or_written(
    name, tmp_path, monkeypatch, capsys
):
    arguments, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo.yaml").write_text("parameters: {gamma: {low: 0, hgih: 1}}")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "ragged.csv").write_text("gamma,tau\n0.9\n")
    (tmp_path / "column.csv").write_text("gama\n0.9\n")
    (tmp_path / "seed.csv").write_text("seed\n1\n")
    (tmp_path / "existing").mkdir()
    (tmp_path / "existing" / "results.csv").write_text("precious")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    monkeypatch.setattr("jaxrl.training.train", lambda _: pytest.fail("something was trained"))
    code = main(arguments if "--tracking-uri" in arguments else [*arguments, "--no-track"])
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "existing" / "results.csv").read_text() == "precious"


def evaluated(journal):
    """The agents that have been evaluated so far."""
    records = [record for record, _ in read(journal) if record["kind"] == "evaluation"]
    return {agent for record in records for agent in record["agents"]}


def test_ctrl_c_ends_a_sweep_cleanly(mlflow_server, tmp_path):
    where = ["--tracking-uri", mlflow_server, "--experiment", "interrupted"]
    endless = ["--configs", "4", "--steps", "100000000", "--eval-every", "1000"]
    arguments = [*endless, "--set", "buffer_size=1000", *where, "--run-dir", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxrl.sweep", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    deadline = time.monotonic() + 120
    while evaluated(tmp_path / "run" / "journal") < {0, 1, 2, 3}:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: what was done is written" in output
    assert "latest_return" in output  # nobody has a final score
    assert re.search(r"^ +1 +\d +\d+\.\d ", output, re.MULTILINE)
    table = rows(tmp_path / "run" / "results.csv")
    assert [row["status"] for row in table] == ["killed"] * 4
    assert all(0 < int(row["env_steps"]) < 100_000_000 for row in table)
    *_, (last, _) = read(tmp_path / "run" / "journal")
    assert (last["kind"], last["status"]) == ("end", "killed")
    _, parents, children = runs_of(mlflow_server, "interrupted")
    assert [run.info.status for run in (*parents, *children)] == ["KILLED"] * 5


def test_a_reader_that_goes_away_does_not_end_the_sweep(tmp_path):
    arguments = [*QUICK, "--configs", "2", "--no-track", "--run-dir", "run"]
    command = f"{sys.executable} -m jaxrl.sweep {' '.join(arguments)} | head -1"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=120)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "best" / "2" / "policy.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [row["status"] for row in rows(tmp_path / "run" / "results.csv")] == ["finished"] * 2


def test_what_tracking_will_cost_is_said_before_it_starts(tmp_path, capsys):
    where = ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    few = ["--tracker-requests-per-hour", "100", "--track", "top:2"]
    arguments = [*QUICK, "--configs", "5", *where, *few, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    said = "tracking: about 13 requests of 100 an hour, and 1 each time"
    assert said in output
    assert output.index(said) < output.index("compiling the first programs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--track", "some"], "give all, top:N"),
        (["--tracker-requests-per-hour", "0"], "give 1 or more"),
        (["--checkpoint-every", "-1"], "give 0 or more seconds"),
        (["--checkpoint-every", "nan"], "give 0 or more seconds"),
        (["--checkpoint-every", "inf"], "give 0 or more seconds"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    assert main([*arguments, "--no-track"]) == 2
    assert message in capsys.readouterr().err
