"""jaxrl.serve through ngrok: opened, used again, dropped, refused, with a stand-in for its agent."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
import urllib.parse

import psutil
import pytest
import requests
from mlflow_behind_tunnel import AGENT, served, serving
from mlflow_server import free_port

pytest_plugins = ["mlflow_behind_tunnel"]

NAME = "my-laptop.ngrok-free.app"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=10"


def test_through_ngrok_opened_first_closed_first(agent, tmp_path):
    with served(tmp_path / "data", "--port", str(free_port()), agent=agent) as service:
        login = service.login("sweep")
        assert requests.get(service.address + SEARCH, auth=login, timeout=30).ok
        assert requests.get(service.address + SEARCH, timeout=30).status_code == 401
        family = [*service.family, *agent.processes]
        assert len(family) >= 4
        started = {p.pid: p.create_time() for p in family}
        (tunnel,) = agent.processes
        service.process.send_signal(signal.SIGINT)
        tunnel.wait(10)
        assert len(service.family) >= 3  # the server is still there
        assert service.process.wait(40) == 0
    assert not psutil.wait_procs(family, 10)[1]
    posted = [call["body"] for call in agent.calls if call.get("method") == "POST"]
    assert [body["inspect"] for body in posted] == [False]
    (pid,) = [call["pid"] for call in agent.calls if call.get("arguments", [""])[0] == "start"]
    servers = [time for other, time in started.items() if other not in (pid, service.process.pid)]
    assert started[pid] < min(servers)
    assert all("token" not in call.get("arguments", []) for call in agent.calls)
    assert "token" not in service.output


def test_killed_it_leaves_no_open_tunnel(agent, tmp_path):
    with serving(tmp_path / "data", "--port", str(free_port()), agent=agent) as service:
        service.wait_for(lambda: "starting MLflow" in service.output)
        family = [*service.family[1:], *agent.processes]
        service.process.kill()
        service.process.wait()
        assert not psutil.wait_procs(family, 20)[1]


def test_a_reserved_domain_is_asked_for(agent, tmp_path):
    with serving(tmp_path / "data", "--domain", NAME, agent=agent) as service:
        service.wait_for(lambda: "starting MLflow" in service.output)
        (body,) = [call["body"] for call in agent.calls if call.get("method") == "POST"]
        assert body["url"] == f"https://{NAME}"
        family = [*service.family, *agent.processes]
        assert service.end(signal.SIGTERM) == 0  # also while the server starts
    assert not psutil.wait_procs(family, 10)[1]


def test_a_tunnel_that_is_up_is_used_again_and_left_open(agent, tmp_path):
    port, page = free_port(), free_port()
    agent.behave(web_port=page)
    configuration = agent.folder / ".config" / "ngrok" / "ngrok.yml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f'version: "3"\nagent:\n  web_addr: 127.0.0.1:{page}\n')
    environment = {**agent.environment, "NGROK_AUTHTOKEN": "x", "PATH": "/usr/bin:/bin"}
    other = subprocess.Popen([sys.executable, str(AGENT), "start"], env=environment)
    body = {"name": "by hand", "upstream": {"url": f"http://localhost:{port}"}}
    opened = _patiently(
        lambda: requests.post(f"http://127.0.0.1:{page}/api/endpoints", json=body, timeout=5)
    ).json()
    with serving(tmp_path / "data", "--port", str(port), agent=agent) as service:
        service.wait_for(lambda: f"open already: {opened['url']}" in service.output)
        assert service.end() == 0
    assert other.poll() is None  # it was not ours
    starts = [call for call in agent.calls if call.get("arguments", [""])[0] == "start"]
    assert len(starts) == 1


def test_a_tunnel_that_drops_is_opened_again_under_its_new_name(agent, tmp_path):
    with served(tmp_path / "data", "--port", str(free_port()), agent=agent) as service:
        before = service.address
        agent.behave(open_error=334)
        for process in agent.processes:
            process.kill()
        service.wait_for(lambda: "ERR_NGROK_334" in service.output)
        assert requests.get(f"{service.local}/health", timeout=30).ok  # here it is still served
        agent.behave()
        service.wait_for(lambda: service.output.count("dashboard:") == 2)
        assert "another address" in service.output
        assert service.address != before
        login = service.login("sweep")
        assert requests.get(service.address + SEARCH, auth=login, timeout=30).ok
        stale = {"Host": urllib.parse.urlsplit(before).netloc}
        answer = requests.get(service.local + SEARCH, auth=login, headers=stale, timeout=30)
        assert answer.status_code == 403
        assert len(agent.processes) == 1


def test_in_a_terminal_the_token_is_asked_for_once_and_the_connection_shown(agent, tmp_path):
    def run(*expected):
        """What is on the screen of a service that is ended after the last of what is expected; what
        is expected comes with what is then typed."""
        environment = {k: v for k, v in os.environ.items() if k != "NGROK_AUTHTOKEN"}
        command = [sys.executable, "-m", "jaxrl.serve", "--dir", str(tmp_path / "data")]
        keyboard, terminal = pty.openpty()
        process = subprocess.Popen(
            [*command, "--port", str(free_port())],
            env=environment | agent.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        screen = b""
        for text, typed in expected:
            while text not in screen:
                assert select.select([keyboard], [], [], 60)[0], screen
                screen += os.read(keyboard, 4096)
            os.write(keyboard, typed)
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        os.close(terminal)
        return screen.decode()

    screen = run((b"(not shown):", b"my-token\n"), (b"Ctrl-C ends it", b""))
    connection = (tmp_path / "data" / "connection.txt").read_text().strip()
    assert connection in screen
    assert (
        json.loads((tmp_path / "data" / "accounts.json").read_text())["owner"]["password"] in screen
    )
    assert "my-token" not in screen
    kept = tmp_path / "data" / "ngrok-token.txt"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "(not shown)" not in run((b"starting MLflow", b""))
    agent.behave(start_error=107)
    with serving(tmp_path / "data", agent=agent, token=None) as service:
        assert service.process.wait(60) == 1
    assert not kept.exists()  # it is asked for anew


@pytest.mark.parametrize(
    ("control", "token", "said"),
    [
        ({}, None, "get-started/your-authtoken"),
        ({"start_error": 105}, "nonsense", "no ngrok token"),
        ({"start_error": 107}, "nonsense", "does not know this token"),
        ({"start_error": 108}, "nonsense", "dashboard.ngrok.com/agents"),
        ({"start_error": 121}, "nonsense", "pyngrok update"),
        ({"start_error": 4018}, "nonsense", "needs an account"),
        ({"start_error": 9999}, "nonsense", "err_ngrok_9999"),
        ({"start_error": 4018, "mute": True}, "nonsense", "needs an account"),
        ({"open_error": 334}, "nonsense", "another agent of yours"),
        ({"open_error": 324}, "nonsense", "no endpoint left"),
        ({"open_error": 727}, "nonsense", "requests of the account are used up"),
    ],
)
def test_what_ngrok_refuses_is_one_line_and_leaves_nothing(agent, tmp_path, control, token, said):
    agent.behave(**control)
    with serving(tmp_path / "data", agent=agent, token=token) as service:
        assert service.process.wait(60) in (1, 2)
        (line,) = [text for text in service.output.splitlines() if text]
        assert line.startswith("error: ")
        assert said in line
        assert "nonsense" not in line
        assert not agent.processes
        assert not (tmp_path / "data" / "server.log").exists()  # it was never started
        assert not service.family


@pytest.mark.slow
@pytest.mark.parametrize("control", [{"silent": True}, {"offline": True}, {"old": True}])
def test_an_agent_that_never_connects_is_given_up(agent, tmp_path, control):
    agent.behave(**control)
    with serving(tmp_path / "data", agent=agent) as service:
        assert service.process.wait(90) == 1
        assert "its agent did not connect: " in service.output
        assert "pyngrok update" in service.output
        assert not agent.processes


def _patiently(action):
    for _ in range(200):
        try:
            return action()
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("nothing answers")
