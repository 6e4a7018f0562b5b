"""What is said about a tracking server before a sweep starts, and about addresses with passwords."""

import contextlib
import http.server
import itertools
import os
import threading

import mlflow
import pytest
from forwarding import forwarding

from jaxrl.errors import InputError, brief, without_secrets
from jaxrl.sweep import main as sweep
from jaxrl.tracking import preflight
from jaxrl.tracking.credentials import (
    default_uri,
    forget_credentials,
    public_uri,
    take_credentials,
)
from jaxrl.tracking.mlflow_tracker import MlflowTracker
from jaxrl.tracking.preflight import Preflight, explain_answer, judge_artifacts
from jaxrl.tracking.projection import Description, RunUpdate

pytest_plugins = ["mlflow_server"]

_number = itertools.count()


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "JAXRL_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    yield
    forget_credentials()


def describe(experiment=None):
    return Description(
        name="my-sweep",
        sweep_id=f"preflight-{next(_number)}",
        experiment=experiment or f"preflight-{next(_number)}",
        params={},
        configurations=[{"gamma": 0.9}],
        configs=[0],
        seeds=[0],
    )


def refusal(uri):
    with pytest.raises(InputError) as caught:
        MlflowTracker(uri, describe()).connect()
    return str(caught.value)


@contextlib.contextmanager
def answering(status, text):
    """The address of a server that answers everything in one way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_good_server_is_described_in_a_line(mlflow_server):
    (line,) = MlflowTracker(mlflow_server, describe("good one")).connect()
    assert line.startswith(
        f"tracking: {mlflow_server}: MLflow {mlflow.__version__}, without a login"
    )
    assert "may write to 'good one', files are kept through the server, a request takes" in line
    assert line.endswith("ms")


def test_an_experiment_that_was_there_is_tried_by_writing_a_tag(mlflow_server):
    client = mlflow.MlflowClient(mlflow_server)
    number = client.create_experiment("there before")
    MlflowTracker(mlflow_server, describe("there before")).connect()
    assert client.get_experiment(number).tags == {preflight.TAG: "my-sweep"}


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "ERR_NGROK_727", "requests of the account are used up"),
        (429, "ERR_NGROK_734", "too many requests a minute"),
        (404, "ERR_NGROK_3200", "no tunnel is open"),
        (502, "ERR_NGROK_8012", "no server answers behind it"),
        (502, "ERR_NGROK_3004", "does not speak HTTP"),
        (200, "ERR_NGROK_6024", "warning page"),
        (403, "ERR_NGROK_6022", "opened without an account"),
        (500, "ERR_NGROK_12345", "ngrok.com/docs/errors/err_ngrok_12345"),
    ],
)
def test_a_tunnels_own_page_is_told_by_its_code(status, code, said):
    with forwarding("http://127.0.0.1:9") as forwarder:
        forwarder.answer_with = (status, code)
        message = refusal(forwarder.url)
    assert said in message
    assert code in message


def test_a_host_name_that_mlflow_refuses_comes_with_the_option(mlflow_server):
    with forwarding(mlflow_server, host="name.ngrok-free.app") as forwarder:
        message = refusal(forwarder.url)
        netloc = forwarder.url.removeprefix("http://")
    assert "--allowed-hosts 'localhost,localhost:5000,127.0.0.1,127.0.0.1:5000," in message
    assert f"{netloc}'" in message


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.30.0", "is too old"), ("3.9.0", "CVE-2026-2652"), ("3.11.1", None), ("hello", None)],
)
def test_versions_are_judged(version, said):
    with answering(200, version) as uri:
        if version == "1.30.0":
            with pytest.raises(InputError, match=said):
                preflight.look(uri)
            return
        found = preflight.look(uri)
    assert found.version == (None if version == "hello" else version)
    assert [said in warning for warning in found.warnings] == ([True] if said else [])


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (401, "You are not authenticated.", "USER:PASSWORD@HOST"),
        (429, "Too many wrong passwords. Try again later.", "try again in a minute"),
        (403, "Permission denied", "another --experiment"),
        (503, "", "answers 503"),
    ],
)
def test_refusals_say_what_helps(status, text, said):
    with answering(status, text) as uri:
        message = refusal(uri)
    assert said in message
    assert "--no-track" in message


def test_a_wrong_password_is_told_from_a_missing_one():
    with answering(401, "You are not authenticated.") as uri:
        message = refusal(uri.replace("://", "://jaxrl:wrong-one@"))
    assert "does not accept this password of jaxrl" in message
    assert "wrong-one" not in message


@pytest.mark.parametrize(
    ("location", "uri", "takes", "said"),
    [
        ("mlflow-artifacts:/1", "https://far.example", True, "through the server"),
        ("s3://bucket/1", "https://far.example", True, "sent to s3:"),
        ("/home/me/mlruns/1", "http://127.0.0.1:5000", True, "in /home/me"),
        ("file:///home/me", "http://localhost:5000", True, "in file:///home/me"),
        ("/home/me/mlruns/1", "https://far.example", False, "not sent"),
        ("./artifacts/1", "http://192.168.1.2:5000", False, "not sent"),
    ],
)
def test_where_files_go_is_said(location, uri, takes, said):
    found = Preflight(uri, seconds=[0.01])
    judge_artifacts(found, location)
    assert found.takes_artifacts is takes
    assert said in found.lines("x")[0]
    assert ("--artifacts-destination" in " ".join(found.warnings)) is not takes


def test_files_that_would_land_on_this_machine_are_not_written(
    mlflow_server, tmp_path, monkeypatch
):
    """What happens where a server was begun with ``--default-artifact-root ./artifacts``."""
    monkeypatch.setattr(preflight, "_is_here", lambda uri: False)
    where = tmp_path / "theirs"
    description = describe()
    client = mlflow.MlflowClient(mlflow_server)
    client.create_experiment(description.experiment, artifact_location=str(where))
    tracker = MlflowTracker(mlflow_server, description)
    assert any("--artifacts-destination" in line for line in tracker.connect())
    tracker.apply(RunUpdate(None, 1_700_000_000_000))
    (tmp_path / "results.csv").write_text("1")
    tracker.attach(tmp_path / "results.csv")
    assert not where.exists()


def test_a_slow_server_is_told_in_seconds_and_plain_http_is_warned_of(monkeypatch):
    found = Preflight("http://far.example", seconds=[0.1, 2.0, 3.0])
    assert "a request takes 2.0 s" in found.lines("x")[0]
    monkeypatch.setattr(preflight, "_is_here", lambda uri: False)
    with answering(200, "3.17.0") as uri:
        take_credentials(uri.replace("://", "://me:secret@"))
        (warning,) = preflight.look(uri).warnings
    assert "unencrypted" in warning


def test_credentials_go_to_mlflow_and_are_not_kept_for_another_server():
    assert take_credentials("https://me:p%40ss@h.example/x") == "https://h.example/x"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@ss"
    assert take_credentials("https://other.example") == "https://other.example"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:SEC RET@127.0.0.1:9",
        "http://me:SEC/RET@127.0.0.1:9",
        "https://me:SEC#RET@h.example",
        "https://me:SEC?RET@h.example",
        "https://me:#SECRET@h.example",
        "https://me:SEC：RET@h.example",
        "https://me:SEC[RET@h.example",
    ],
)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(uri):
    with pytest.raises(InputError, match="%23 for #") as caught:
        MlflowTracker(uri, describe())
    assert "SEC" not in str(caught.value)


def test_quotes_around_a_variable_are_no_part_of_it(monkeypatch):
    monkeypatch.setenv("JAXRL_TRACKING_URI", " 'https://h.example' ")
    assert default_uri() == "https://h.example"


def test_https_to_a_server_without_it_is_said(mlflow_server):
    assert "write http://" in refusal(mlflow_server.replace("http://", "https://"))


def test_credentials_that_the_user_set_are_left_alone(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mine")
    take_credentials("https://other.example")
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "mine"


@pytest.mark.parametrize("uri", ["sqlite:///a@b.db", "https://h/x@y", "databricks"])
def test_addresses_without_credentials_stay_as_they_are(uri):
    assert take_credentials(uri) == public_uri(uri) == uri


def test_a_databases_password_is_not_shown():
    uri = "postgresql://me:SECRET@h/db?sslmode=require&password=SECRET"
    assert public_uri(uri) == "postgresql://h/db?sslmode=require"


def test_the_environment_may_hold_the_connection_string(
    mlflow_server, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("JAXRL_TRACKING_URI", mlflow_server.replace("://", "://me:secret-one@"))
    assert default_uri().endswith(mlflow_server.removeprefix("http://"))
    options = ["--configs", "2", "--steps", "200", "--device", "cpu", "--experiment", "by variable"]
    few = ["--eval-episodes", "1", "--final-episodes", "1", "--set", "hidden_sizes=[8]"]
    assert sweep([*options, *few, "--run-dir", str(tmp_path / "run")]) == 0
    client = mlflow.MlflowClient(mlflow_server)
    number = client.get_experiment_by_name("by variable").experiment_id
    assert len(client.search_runs([number])) == 3
    output = capsys.readouterr()
    assert "secret-one" not in output.out + output.err


def test_a_misspelt_option_does_not_show_the_password_that_follows(capsys):
    assert sweep(["--tracking-url", "https://me:secret-one@h.example"]) == 2
    error = capsys.readouterr().err
    assert "secret-one" not in error
    assert "https://***@h.example" in error


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("at https://me:secret@h.example/x and more", "at https://***@h.example/x and more"),
        ("https://me:se@cret@h", "https://***@h"),
        ("https://h.example no secret", "https://h.example no secret"),
        ("https://USER:PASSWORD@HOST", "https://USER:PASSWORD@HOST"),
    ],
)
def test_text_for_people_holds_no_password(text, clean):
    assert without_secrets(text) == clean
    assert brief(RuntimeError(text)) == clean


def test_a_deleted_experiment_is_said_with_its_remedy():
    text = "The experiment 3 must be in the 'active' state. Current state is deleted."
    assert "restore it" in explain_answer(400, text, "http://h")
