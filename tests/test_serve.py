"""jaxrl.serve: who gets in, and who does not, with real processes."""

import base64
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.parse

import mlflow
import psutil
import pytest
import requests
from forwarding import forwarding
from mlflow_behind_tunnel import served
from mlflow_server import free_port

from jaxrl.serve import main as serve
from jaxrl.server.interrupts import check, interruptible
from jaxrl.server.process import MlflowServer
from jaxrl.sweep import main as sweep
from jaxrl.tracking.credentials import forget_credentials

pytest_plugins = ["mlflow_behind_tunnel"]

NAME = "my-laptop.ngrok-free.app"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=10"
SMALL = ["--configs", "32", "--steps", "400", "--eval-every", "200", "--device", "cpu"]
FEW = ["--eval-episodes", "2", "--final-episodes", "2", "--set", "hidden_sizes=[8]"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service that another tunnel reaches under NAME."""
    directory = tmp_path_factory.mktemp("served") / "my data, 100 % 'é'?#"
    with served(directory, "--domain", NAME, "--port", str(free_port())) as service:
        yield service


@pytest.fixture(scope="module")
def tunnel(service):
    """The public end of that tunnel."""
    with forwarding(service.local, host=NAME) as forwarder:
        yield forwarder


@pytest.fixture
def connection(service, tunnel):
    """The connection string, but for the name, which leads to no tunnel here."""
    assert service.address == f"https://{NAME}"
    user, password = service.login("sweep")
    yield f"http://{user}:{password}@127.0.0.1:{tunnel.server_port}"
    forget_credentials()


@pytest.fixture(scope="module")
def experiment_of_owner(service):
    """An experiment with a run and a file that is none of the sweep's account."""
    login = service.login("owner")

    def ask(method, path, **kwargs):
        answer = requests.request(method, service.local + path, auth=login, timeout=30, **kwargs)
        assert answer.ok, answer.text
        return answer

    made = ask("POST", "/api/2.0/mlflow/experiments/create", json={"name": "the owner's"}).json()
    number = made["experiment_id"]
    run = ask("POST", "/api/2.0/mlflow/runs/create", json={"experiment_id": number}).json()
    run_id = run["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/{number}/{run_id}/artifacts/secret.txt"
    ask("PUT", path, data=b"secret")
    return number, run_id, path


def test_a_sweep_arrives_whole_through_a_tunnel(service, tunnel, connection, tmp_path, capsys):
    run_dir = tmp_path / "run"
    where = ["--tracking-uri", connection, "--experiment", "whole", "--run-dir", str(run_dir)]
    assert sweep([*SMALL, *FEW, *where]) == 0
    output = capsys.readouterr().out
    client = mlflow.MlflowClient(f"http://127.0.0.1:{tunnel.server_port}")  # as the sweep's account
    experiment = client.get_experiment_by_name("whole")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert len(runs) == 33
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = [run for run in runs if "jaxrl.config" in run.data.tags]
    assert {
        len(client.get_metric_history(c.info.run_id, "eval/return_mean")) for c in children
    } == {2}
    (parent,) = [run for run in runs if run not in children]
    local = client.download_artifacts(parent.info.run_id, "results.csv", str(tmp_path))
    assert pathlib.Path(local).read_bytes() == (run_dir / "results.csv").read_bytes()
    assert list(service.directory.rglob("results.csv"))  # on the server's disk
    # The preflight, in words.
    for part in ("MLflow 3", "logged in as jaxrl", "through the server", "a request takes"):
        assert part in output
    # The password is nowhere.
    _, password = service.login("sweep")
    assert password not in output
    for path in run_dir.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes()
    for run in runs:
        assert password not in repr(run.to_dictionary())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        SEARCH,
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        "/api/2.0/mlflow-artifacts/artifacts",
        "/api/2.0/mlflow/users/get?username=owner",
        "/get-artifact?run_uuid=1&path=x",
        "/graphql",
        "/signup",
        "/version",
        "/v1/traces",
        "/ajax-api/3.0/jobs/1",
        "/gateway/x",
        "/metrics",
    ],
)
def test_without_a_login_nothing_that_holds_data_answers(tunnel, path):
    assert requests.get(tunnel.url + path, timeout=30).status_code == 401
    assert requests.post(tunnel.url + path, json={}, timeout=30).status_code in (401, 404, 405)


def test_files_need_a_login_and_the_right_one(service, tunnel, experiment_of_owner):
    _, run_id, path = experiment_of_owner
    sweep_account = service.login("sweep")
    for login, status in ((None, 401), (sweep_account, 403), (service.login("owner"), 200)):
        assert requests.get(tunnel.url + path, auth=login, timeout=30).status_code == status
        page = f"/get-artifact?run_uuid={run_id}&path=secret.txt"
        assert requests.get(tunnel.url + page, auth=login, timeout=30).status_code == status
    assert requests.put(tunnel.url + path, b"x", auth=sweep_account, timeout=30).status_code == 403


def test_what_is_open_without_a_login_holds_no_data(tunnel):
    """MLflow itself leaves these open; the README says so."""
    assert requests.get(f"{tunnel.url}/health", timeout=30).text == "OK"
    info = requests.get(f"{tunnel.url}/api/3.0/mlflow/server-info", timeout=30)
    assert info.status_code in (200, 401)  # older ones ask for a login here too
    assert "the owner's" not in info.text
    assert requests.get(f"{tunnel.url}/static-files/nothing", timeout=30).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", f"{NAME}.evil.example", "localhost:1", "*"])
def test_another_host_name_is_refused_even_with_the_password(service, host):
    login = service.login("owner")
    answer = requests.get(service.local + SEARCH, auth=login, headers={"Host": host}, timeout=30)
    assert answer.status_code == 403


def test_a_request_with_two_hosts_is_refused(service):
    """Else one would be checked, and the other become part of the path that the permits see."""
    name = urllib.parse.urlsplit(service.local).netloc
    user, password = service.login("sweep")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    lines = ["GET /ajax-api/3.0/mlflow/assistant/config HTTP/1.1", f"Host: {name}/version?"]
    lines += [f"Host: {name}", f"Authorization: Basic {login}", "Connection: close", "", ""]
    with socket.create_connection((name.split(":")[0], int(name.split(":")[1])), 30) as stranger:
        stranger.sendall("\r\n".join(lines).encode())
        assert stranger.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("header", ["Bearer x", "Digest username=a, b", "Basic !", ""])
def test_a_login_of_another_kind_is_none(service, header):
    for path in (SEARCH, "/ajax-api/3.0/mlflow/assistant/config"):
        headers = {"Authorization": header}
        answer = requests.get(service.local + path, headers=headers, timeout=30)
        assert answer.status_code == 401


def test_a_page_from_elsewhere_may_not_write(service, tunnel):
    def write(origin):
        path, body = "/api/2.0/mlflow/experiments/create", {"name": f"from {origin}"}
        login, headers = service.login("owner"), {"Origin": origin}
        return requests.post(tunnel.url + path, json=body, auth=login, headers=headers, timeout=30)

    assert write("https://evil.example").status_code == 403
    assert write(f"https://{NAME}").status_code == 200


def test_the_sweeps_account_sees_and_changes_its_own_only(service, experiment_of_owner):
    number, run_id, _ = experiment_of_owner
    login = service.login("sweep")

    def ask(method, path, **kwargs):
        url = f"{service.local}/api/2.0/mlflow/{path}"
        return requests.request(method, url, auth=login, timeout=30, **kwargs)

    found = ask("GET", "experiments/search?max_results=100").json().get("experiments", [])
    assert "the owner's" not in [experiment["name"] for experiment in found]
    assert ask("GET", f"experiments/get?experiment_id={number}").status_code == 403
    assert ask("GET", f"runs/get?run_id={run_id}").status_code == 403
    refused = [
        ("POST", "runs/create", {"experiment_id": number}),
        ("POST", "runs/log-metric", {"run_id": run_id, "key": "a", "value": 1, "timestamp": 1}),
        ("POST", "experiments/delete", {"experiment_id": number}),
        ("POST", "users/create", {"username": "another", "password": "x" * 20}),
        ("PATCH", "users/update-admin", {"username": login[0], "is_admin": True}),
        ("PATCH", "users/update-password", {"username": "owner", "password": "x" * 20}),
    ]
    for method, path, body in refused:
        assert ask(method, path, json=body).status_code == 403, path
    made = ask("POST", "experiments/create", json={"name": "mine"})
    assert made.ok
    assert ask("POST", "runs/create", json=made.json()).ok


def test_the_assistant_that_runs_commands_is_closed_to_everybody(service):
    """It trusts whoever comes from the loopback, which is where a tunnel comes from."""
    for account in ("sweep", "owner"):
        login = service.login(account)
        for method, path in (
            ("GET", "config"),
            ("PUT", "config"),
            ("POST", "message"),
            ("GET", "%63onfig"),
            ("GET", "./config"),
        ):
            url = f"{service.local}/ajax-api/3.0/mlflow/assistant/{path}"
            answer = requests.request(method, url, json={}, auth=login, timeout=30)
            assert answer.status_code == 403, (account, method, path)
    assert not (service.directory / ".mlflow" / "assistant").exists()


def test_the_sweeps_account_cannot_choose_where_files_go(service, tmp_path):
    login, url = service.login("sweep"), f"{service.local}/api/2.0/mlflow/experiments/create"
    where = f"file://{tmp_path}"
    for number, body in enumerate((
        {"artifact_location": where},
        {"artifactLocation": where},
        {"artifact_location": "s3://bucket"},
        {"artifact_location": "mlflow-artifacts:/1"},
    )):  # fmt: skip
        content = {"name": f"elsewhere {number}", **body}
        for sent in (json.dumps(content), json.dumps(json.dumps(content))):
            headers = {"Content-Type": "application/json"}
            answer = requests.post(url, sent, auth=login, headers=headers, timeout=30)
            assert answer.status_code == 403, sent


def test_wrong_passwords_are_refused_then_slowed_and_nobody_else_is(service):
    def status(user, password):
        return requests.get(service.local + SEARCH, auth=(user, password), timeout=30).status_code

    first = [status("jaxrl", f"wrong {number}") for number in range(10)]
    assert set(first) == {401}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        later = list(pool.map(lambda number: status("owner", f"wrong {number}"), range(20)))
    assert later.count(429) >= 18
    answer = requests.get(service.local + SEARCH, auth=("owner", "wrong"), timeout=30)
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    assert status(*service.login("owner")) == status(*service.login("sweep")) == 200


def test_secrets_are_their_owners_alone_and_in_no_log_or_command_line(service):
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in service.directory.iterdir()}
    assert {"accounts.json", "connection.txt", "mlflow.db", "basic_auth.db"} <= set(modes)
    open_to_others = {name for name, mode in modes.items() if mode & 0o077}
    assert open_to_others <= {"heartbeat.json"}  # who works here
    assert stat.S_IMODE(service.directory.stat().st_mode) == 0o700
    commands = [" ".join(process.cmdline()) for process in service.family]
    assert len(commands) >= 2
    for account in ("owner", "sweep"):
        _, password = service.login(account)
        assert len(password) >= 32
        for text in (service.output, (service.directory / "server.log").read_text(), *commands):
            assert password not in text


@pytest.mark.slow
def test_stopped_and_started_again_nothing_is_lost(tmp_path):
    directory = tmp_path / "data"
    with served(directory, "--port", str(free_port())) as first:
        connection, family = first.connection, first.family
        login = first.login("sweep")
        url = f"{first.local}/api/2.0/mlflow/experiments/create"
        assert requests.post(url, json={"name": "kept"}, auth=login, timeout=30).ok
        assert first.end(signal.SIGTERM) == 0
    assert not psutil.wait_procs(family, 10)[1]
    with served(directory, "--port", str(urllib.parse.urlsplit(connection).port)) as second:
        assert second.connection == connection
        found = requests.get(second.local + SEARCH, auth=login, timeout=30).json()["experiments"]
        assert [experiment["name"] for experiment in found] == ["kept"]
        again = subprocess.run(
            [sys.executable, "-m", "jaxrl.serve", "--tunnel", "none", "--dir", str(directory)],
            capture_output=True,
            text=True,
        )
        assert again.returncode == 2
        assert "works on" in again.stderr
        second.process.kill()  # where nothing can be tidied up
        family = [process for process in second.family if process.pid != second.process.pid]
        second.process.wait()
        assert not psutil.wait_procs(family, 20)[1]


def test_the_local_network_is_served_the_same_way_at_the_next_free_port(tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with served(tmp_path / "data", "--host", "0.0.0.0", "--port", port) as service:
            assert f"port {port} is taken" in service.output
            assert "unencrypted" in service.output
            other = urllib.parse.urlsplit(service.local).port
            name = socket.gethostname()
            for host, status in ((f"{name}:{other}", 200), (name, 403), ("evil.example", 403)):
                headers, login = {"Host": host}, service.login("owner")
                url = service.local + SEARCH
                answer = requests.get(url, auth=login, headers=headers, timeout=30)
                assert answer.status_code == status
            assert urllib.parse.urlsplit(service.connection).hostname != "127.0.0.1"
            assert requests.get(service.address + SEARCH, timeout=30).status_code == 401


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "0"], "--port 0"),
        (["--port", "70000"], "--port 70000"),
        (["--host", "0.0.0.0"], "--host is for --tunnel none"),
        (["--tunnel", "none", "--host", "203.0.113.9"], "--host 203.0.113.9"),
        (["--tunnel", "none", "--host", "::"], "give 0.0.0.0"),
        (["--domain", "a b"], "--domain a b"),
        (["--domain", "*.ngrok.app"], "--domain *.ngrok.app"),
        (["--domain", "https://name/with/path"], "--domain https://name/with/path"),
        (["--tunnel", "cloud"], "--tunnel"),
        (["--dir", "full"], "--dir full"),
        (["--dir", "full/file"], "--dir full/file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert serve(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_accounts_that_cannot_be_read_are_said(tmp_path, capsys):
    (tmp_path / "accounts.json").write_text(json.dumps({"owner": {}}))
    assert serve(["--tunnel", "none", "--dir", str(tmp_path)]) == 2
    assert "accounts.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "address"),
    [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("192.0.2.1", "192.0.2.1")],
)
def test_where_a_server_is_for_this_machine(host, address, tmp_path):
    assert MlflowServer(tmp_path, None, 5000, host).local_address == f"http://{address}:5000"


def test_an_interrupt_that_was_swallowed_is_raised_again():
    with interruptible():
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in a finaliser
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        with pytest.raises(KeyboardInterrupt):
            check()
    with interruptible():
        check()
