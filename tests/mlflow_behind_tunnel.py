"""``jaxrl.serve`` as a process of its own, with a stand-in for ngrok's agent.

A test file asks for the fixtures with ``pytest_plugins = ["mlflow_behind_tunnel"]``.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator

import psutil
import pytest

AGENT = pathlib.Path(__file__).with_name("ngrok_agent.py")
START_SECONDS = 120


class Agent:
    """The stand-in agent's folder: how it is to behave, and what it was asked."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.environment = {
            "FAKE_NGROK": str(folder),
            "PYNGROK_NGROK_PATH": str(AGENT),
            "HOME": str(folder),
        }

    def behave(self, **control: object) -> None:
        (self.folder / "control.json").write_text(json.dumps(control))

    @property
    def calls(self) -> list[dict]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def processes(self) -> list[psutil.Process]:
        """Those that run."""
        return [
            process
            for process in psutil.process_iter()
            if _environment(process).get("FAKE_NGROK") == str(self.folder)
            and str(AGENT) in process.cmdline()
        ]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


class Service:
    """A ``jaxrl.serve`` that runs."""

    def __init__(self, process: subprocess.Popen, directory: pathlib.Path, log: pathlib.Path):
        self.process = process
        self.directory = directory
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def connection(self) -> str:
        """The connection string."""
        return (self.directory / "connection.txt").read_text().strip()

    @property
    def address(self) -> str:
        """Where it is reached, without a secret."""
        parts = urllib.parse.urlsplit(self.connection)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def local(self) -> str:
        """The dashboard's address."""
        return self.output.split("dashboard: ")[-1].split()[0]

    def login(self, account: str) -> tuple[str, str]:
        content = json.loads((self.directory / "accounts.json").read_text())[account]
        return content["user"], content["password"]

    @property
    def family(self) -> list[psutil.Process]:
        """Its process and all that it started."""
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, is_so: Callable[[], object], seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"it did not come to pass:\n{self.output}")
            time.sleep(0.05)

    def end(self, number: int = signal.SIGINT) -> int:
        """Tells it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(120)


@contextlib.contextmanager
def serving(
    directory: pathlib.Path, *options: str, agent: Agent | None = None, token: str | None = "token"
) -> Iterator[Service]:
    """A service with its data in ``directory``; without ``agent`` with no tunnel."""
    mine = ("MLFLOW_", "NGROK_", "JAXRL_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
    if agent is None:
        options = ("--tunnel", "none", *options)
    else:
        environment |= agent.environment
    if token is not None:
        environment["NGROK_AUTHTOKEN"] = token
    log = directory.with_name(f"{directory.name}.log")
    command = [sys.executable, "-m", "jaxrl.serve", "--dir", str(directory), *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=directory.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, directory, log)
    try:
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(40)


@contextlib.contextmanager
def served(directory: pathlib.Path, *options: str, agent: Agent | None = None) -> Iterator[Service]:
    """The same, once it can be used."""
    with serving(directory, *options, agent=agent) as service:
        service.wait_for(lambda: "Ctrl-C" in service.output)
        yield service


@pytest.fixture
def agent(tmp_path: pathlib.Path) -> Iterator[Agent]:
    """ngrok's agent; none is left running."""
    (tmp_path / "agent").mkdir()
    stand_in = Agent(tmp_path / "agent")
    yield stand_in
    for process in stand_in.processes:
        process.kill()
