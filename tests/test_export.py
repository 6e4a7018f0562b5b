"""A policy to take away: an MLflow model that needs nothing of jaxrl, ONNX, MLflow's registry."""

import dataclasses
import os
import subprocess
import venv

import mlflow
import numpy as np
import pytest
from mlflow_behind_tunnel import served
from mlflow_server import free_port
from test_policy import make_policy

from jaxrl.errors import InputError
from jaxrl.export import main as export
from jaxrl.play import main as play
from jaxrl.policy import load_policy
from jaxrl.sources import find_policy
from jaxrl.sweep import main as sweep
from jaxrl.sync import main as sync

pytest_plugins = ["mlflow_server"]
pytestmark = pytest.mark.usefixtures("compilation_cache")

SMALL = [
    *("--configs", "2", "--steps", "200", "--eval-episodes", "1", "--final-episodes", "1"),
    *("--set", "hidden_sizes=[8]", "--set", "batch_size=8", "--device", "cpu"),
]
OBSERVATIONS = np.random.default_rng(0).normal(size=(10_000, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def tracked(mlflow_server, tmp_path_factory):
    """A sweep whose winner was registered, and how the model is called."""
    run_dir = tmp_path_factory.mktemp("export") / "run"
    where = ["--tracking-uri", mlflow_server, "--experiment", "export", "--register", "pole"]
    assert sweep([*SMALL, *where, "--run-dir", str(run_dir)]) == 0
    return run_dir


@pytest.fixture
def at_the_server(mlflow_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    yield
    mlflow.set_tracking_uri(None)


def parent_of(uri):
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("export").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`jaxrl.config` IS NULL")
    return parent.info.run_id


@pytest.mark.usefixtures("at_the_server")
def test_the_winner_is_found_in_its_run_and_in_the_registry(tracked, mlflow_server, capsys):
    expected = load_policy(tracked / "best" / "1").q_values(OBSERVATIONS)
    run_id = parent_of(mlflow_server)
    sources = (f"runs:/{run_id}", f"runs:/{run_id}/model", "models:/pole", "models:/pole/1")
    for source in (str(tracked), *sources):
        np.testing.assert_array_equal(find_policy(source).q_values(OBSERVATIONS), expected)
    assert play(["models:/pole", "--episodes", "2"]) == 0
    assert capsys.readouterr().out.startswith("mean return ")
    again = ["--tracking-uri", mlflow_server, "--register", "pole"]
    assert sync([str(tracked), *again]) == 0
    assert "registered: models:/pole/2" in capsys.readouterr().out


@pytest.mark.usefixtures("at_the_server")
@pytest.mark.parametrize(
    "source",
    ["runs:/0123456789abcdef0123456789abcdef", "models:/nobody", "models:/pole/9", "runs:/"],
)
def test_what_mlflow_has_not_is_one_line(tracked, source, capsys):
    assert play([source]) == 2
    error = capsys.readouterr().err
    assert f"{source} cannot be had" in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("at_the_server")
def test_a_foreign_model_is_refused(tmp_path, mlflow_server, capsys):
    (tmp_path / "weights.txt").write_text("1 2 3")
    client = mlflow.MlflowClient(mlflow_server)
    run = client.create_run(client.create_experiment("foreign"))
    client.log_artifact(run.info.run_id, str(tmp_path / "weights.txt"), "model")
    assert play([f"runs:/{run.info.run_id}"]) == 2
    assert "holds no policy of jaxrl's" in capsys.readouterr().err


def test_the_model_predicts_what_the_policy_does(tracked, tmp_path):
    assert export([str(tracked), "--model", str(tmp_path / "model")]) == 0
    expected = load_policy(tracked / "best" / "1").act(OBSERVATIONS)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(model.predict(OBSERVATIONS), expected)
    assert "Tensor('float32', (-1, 4))" in str(model.metadata.signature.inputs)
    needed = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in needed] == ["mlflow", "numpy", "safetensors"]
    assert not [*(tmp_path / "model").rglob("*.pkl")]


@pytest.mark.slow
def test_the_model_needs_only_what_it_says(tracked, tmp_path):
    """In a fresh environment with the model's own requirements, and nothing else."""
    assert export([str(tracked), "--model", str(tmp_path / "model")]) == 0
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    needed = str(tmp_path / "model" / "requirements.txt")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", needed], check=True, timeout=280)
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    code = (
        "import mlflow, numpy as np, importlib.util as u; assert u.find_spec('jax') is None;"
        "assert u.find_spec('jaxrl') is None;"
        "model = mlflow.pyfunc.load_model('model');"
        "np.save('actions.npy', model.predict(np.load('observations.npy')))"
    )
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path, env=environment, timeout=200)
    expected = load_policy(tracked / "best" / "1").act(OBSERVATIONS)
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), expected)


@pytest.mark.parametrize("values", [{}, {"dueling": True}, {"hidden_sizes": []}])
def test_onnx_acts_the_same(values, tmp_path, capsys):
    import onnxruntime

    policy = make_policy(**values)
    policy.write(tmp_path / "policy")
    path = tmp_path / "policy.onnx"
    assert export([str(tmp_path / "policy"), "--onnx", str(path)]) == 0
    assert "of 10,000 actions are the same" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(path))
    q_values, actions = session.run(None, {"observations": OBSERVATIONS})
    np.testing.assert_allclose(q_values, policy.q_values(OBSERVATIONS), rtol=1e-3, atol=1e-4)
    assert (actions == policy.act(OBSERVATIONS)).mean() > 0.999


def test_a_policy_that_diverged_is_no_onnx_file(tmp_path, capsys):
    policy = make_policy()
    params = {name: np.full_like(array, np.nan) for name, array in policy.params.items()}
    dataclasses.replace(policy, params=params).write(tmp_path / "policy")
    path = tmp_path / "policy.onnx"
    assert export([str(tmp_path / "policy"), "--onnx", str(path)]) == 2
    assert "its agent diverged" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to write"),
        (["--model", "."], "--model . exists"),
        (["--onnx", "/nowhere/policy.onnx"], "/nowhere/policy.onnx"),
        (["--onnx", "policy.onnx", "--rank", "9"], "no usable policy"),
    ],
)
def test_what_cannot_be_exported_is_one_line(tracked, options, said, capsys):
    assert export([str(tracked), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--register", "a/b"], "give a name without /"),
        (["--register", "pole", "--no-track"], "--no-track contradicts --register"),
        (["--register", "pole", "--tracking-uri", "console:"], "--register needs MLflow"),
    ],
)
def test_a_name_that_cannot_be_registered_is_refused(options, said, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert sweep([*SMALL, *options, "--run-dir", str(run_dir)]) == 2
    assert said in capsys.readouterr().err
    assert not run_dir.exists()


def test_the_account_for_sweeps_may_register(tmp_path, monkeypatch):
    with served(tmp_path / "data", "--port", str(free_port())) as server:
        run_dir = tmp_path / "run"
        where = ["--tracking-uri", server.connection, "--register", "mine"]
        assert sweep([*SMALL, *where, "--run-dir", str(run_dir)]) == 0
        monkeypatch.setenv("JAXRL_TRACKING_URI", server.connection)
        found = find_policy("models:/mine")
    np.testing.assert_array_equal(
        found.act(OBSERVATIONS), load_policy(run_dir / "best" / "1").act(OBSERVATIONS)
    )
    mlflow.set_tracking_uri(None)


def test_hostile_parameters_are_refused_before_they_are_read(tmp_path):
    """A header that promises more than there is, in what MLflow would have downloaded."""
    make_policy().write(tmp_path / "policy")
    (tmp_path / "policy" / "params.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(InputError, match="no usable policy"):
        find_policy(str(tmp_path / "policy"))
