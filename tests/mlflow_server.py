"""A real MLflow server for tests, and a proxy before it that can lose requests.

A test file asks for the fixtures with ``pytest_plugins = ["mlflow_server"]``.
"""

import collections
import contextlib
import http.server
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

START_SECONDS = 120


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server that runs until the tests end."""
    with serve(tmp_path_factory.mktemp("mlflow_server")) as uri:
        yield uri


@pytest.fixture
def mlflow_proxy(mlflow_server: str) -> Iterator["tuple[str, Proxy]"]:
    """The URI of a :class:`Proxy` before the server, and the proxy."""
    with proxy_of(mlflow_server) as (uri, proxy):
        yield uri, proxy


@contextlib.contextmanager
def serve(directory: pathlib.Path, port: int | None = None) -> Iterator[str]:
    """An MLflow server that keeps everything in ``directory``; its URI."""
    port = port or free_port()
    command = [
        *[sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)],
        *["--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}", "--serve-artifacts"],
        *["--artifacts-destination", str(directory / "artifacts"), "--workers", "1"],
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    log = directory / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, which ends as a whole
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(uri, process, log)
        yield uri
    finally:
        _end_group(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_healthy(uri: str, process: subprocess.Popen, log: pathlib.Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
            return
        time.sleep(0.1)
    pytest.fail(f"the MLflow server did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _end_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Proxy:
    """Passes requests on, but for those that it is told to lose.

    ``refuse["log-batch"] = 2``: the next two requests to such a path get status 503.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.seconds = 0.0
        """What every answer takes."""
        self.fail_every = 0
        """Every how many requests one gets status 500; 0 for none."""
        self.refuse: collections.Counter[str] = collections.Counter()
        self.calls: list[str] = []
        """The last part of each request's path, in their order."""

    def answer(self, method: str, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        name = path.partition("?")[0].rpartition("/")[2]
        self.calls.append(name)
        time.sleep(self.seconds)
        if self.fail_every and len(self.calls) % self.fail_every == 0:
            return 500, b"the proxy has failed"
        if self.refuse[name]:
            self.refuse[name] -= 1
            return 503, b"the proxy has lost it"
        headers = {"Content-Type": kind}
        request = urllib.request.Request(self.upstream + path, body or None, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextlib.contextmanager
def proxy_of(upstream: str) -> Iterator[tuple[str, Proxy]]:
    """A :class:`Proxy` before ``upstream``, and its URI."""
    proxy = Proxy(upstream)

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = self.headers.get("Content-Type", "application/json")
            status, content = proxy.answer(self.command, self.path, kind, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", proxy
        finally:
            server.shutdown()
            thread.join()
