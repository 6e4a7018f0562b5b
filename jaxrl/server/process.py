"""MLflow's tracking server as a process of ours: started safely, checked, and ended.

Everything it keeps lies in one data directory: runs (``mlflow.db``), users (``basic_auth.db``),
``artifacts/``, its configuration and its log.
"""

import contextlib
import errno
import http.client
import os
import pathlib
import signal
import site
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Sequence
from importlib.metadata import version

import requests
from packaging.version import Version

from jaxrl import child
from jaxrl.errors import InputError, ServeError
from jaxrl.server.accounts import Account, Accounts, write_private
from jaxrl.server.interrupts import check, deferred

OLDEST_MLFLOW = Version("3.16.1")
"""Older ones let some requests pass without a login (CVE-2026-2652, CVE-2026-0545), or have a default
password."""
_START_SECONDS = 180.0
_STOP_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_LOG_BYTES = 10_000_000
_PORTS_TRIED = 50
_LOOPBACK = ("localhost", "127.0.0.1")
_KEPT = (
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
)
"""Of our environment, for the server."""


def free_port(host: str, port: int) -> int:
    """``port``, or the next one that is free.

    Raises:
        InputError: none is, or ``host`` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _PORTS_TRIED, 65536)):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                if error.errno == errno.EACCES:
                    raise InputError(
                        f"--port {port} is not for this user: give 1024 or more."
                    ) from None
                if error.errno != errno.EADDRINUSE:
                    raise InputError(f"--host {host} is no address of this machine.") from None
                continue
            return candidate
    raise InputError(f"no port from {port} on is free: give another --port.")


class MlflowServer:
    """A server with its data in ``directory``, at ``port`` of ``host``.

    Raises:
        InputError: the installed MLflow is too old to be shown to a network.
    """

    def __init__(
        self, directory: pathlib.Path, accounts: Accounts, port: int, host: str = "127.0.0.1"
    ) -> None:
        self.version = version("mlflow")
        if Version(self.version) < OLDEST_MLFLOW:
            raise InputError(
                f"MLflow {self.version} has known holes: pip install -U 'mlflow[auth]' "
                f"({OLDEST_MLFLOW} or newer)."
            )
        self.port = port
        here = _LOOPBACK[1] if host == "0.0.0.0" else host
        self.local_address = f"http://{f'[{here}]' if ':' in here else here}:{port}"
        self._host = host
        self._directory = directory.absolute()
        self._accounts = accounts
        self._process: subprocess.Popen | None = None

    @property
    def log(self) -> pathlib.Path:
        return self._directory / "server.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, names: Sequence[str], origins: Sequence[str]) -> None:
        """Starts it for requests to the loopback and to ``names`` only.

        Args:
            names: ``HOST`` or ``HOST:PORT``, exactly as in requests' Host header.
            origins: ``https://HOST`` of pages that may write.

        Raises:
            ServeError: it does not start, or does not keep strangers out.
        """
        hosts = [*_LOOPBACK, *(f"{name}:{self.port}" for name in _LOOPBACK), *names]
        self._spawn([
            *["--host", self._host, "--port", str(self.port), "--workers", "1"],
            *["--uvicorn-opts", "--http h11"],  # the one that refuses a request with two hosts
            *["--backend-store-uri", "sqlite:///mlflow.db"],  # where it works: any name will do
            *["--artifacts-destination", "./artifacts", "--serve-artifacts"],
            *["--app-name", "basic-auth", "--x-frame-options", "DENY"],
            *["--allowed-hosts", ",".join(hosts)],
            *(["--cors-allowed-origins", ",".join(origins)] if origins else []),
        ])  # fmt: skip
        try:
            self._wait_until_it_answers()
            self._make_accounts()
            self._keep_strangers_out()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends it and its workers."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self._process = None

    def last_words(self) -> str:
        """The last line of its log that is no request."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        said = (line.strip() for line in reversed(lines) if " HTTP/1." not in line)
        return next((line for line in said if line), "it does not say why")

    def _spawn(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "mlflow", "server", *arguments]
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.unlink()
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log, deferred():
            self._process = child.start(
                command,
                cwd=self._directory,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=0o077,  # its databases too are its owner's alone
            )

    def _environment(self) -> dict[str, str]:
        """What the server needs of ours, which is little, and its secrets. Its home is the data
        directory: it finds no keys to other services, and no settings."""
        configuration = self._directory / "basic_auth.ini"
        write_private(configuration, _CONFIGURATION)
        kept = {name: value for name, value in os.environ.items() if name in _KEPT}
        return kept | {
            "HOME": str(self._directory),
            "PYTHONUSERBASE": site.getuserbase(),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self._accounts.secret_key,
            "MLFLOW_AUTH_ADMIN_USERNAME": self._accounts.owner.user,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self._accounts.owner.password,
            "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            check()
            if not self.is_running:
                raise ServeError(f"MLflow did not start: {self.last_words()} (see {self.log}).")
            with contextlib.suppress(requests.RequestException):
                if self._ask("GET", "/health").ok:
                    return
            time.sleep(0.1)
        raise ServeError(f"MLflow did not answer in {_START_SECONDS:.0f} s (see {self.log}).")

    def _make_accounts(self) -> None:
        """Makes the sweep's account where there is none; logs both in, which the brake on wrong
        passwords remembers."""
        sweep = self._accounts.sweep
        if self._ask("GET", "/version", self._accounts.owner).status_code == 200:
            name = {"username": sweep.user}
            path = f"/api/2.0/mlflow/users/get?{urllib.parse.urlencode(name)}"
            if self._ask("GET", path, self._accounts.owner).status_code == 404:
                user = {**name, "password": sweep.password}
                self._ask("POST", "/api/2.0/mlflow/users/create", self._accounts.owner, user)
        for account in (self._accounts.owner, sweep):
            if self._ask("GET", "/version", account).status_code != 200:
                raise ServeError(
                    f"MLflow does not accept the password of {account.user!r} in "
                    f"{self._directory / 'accounts.json'}: put the right one there, or move "
                    "basic_auth.db away for new accounts; runs are kept in mlflow.db."
                )

    def _keep_strangers_out(self) -> None:
        """Looks whether a request without a login, to another host, and to two hosts are refused.

        One with two hosts must be: where one is checked and the other becomes part of the path
        that is looked up among the permits, anything is permitted.
        """
        path = "/api/2.0/mlflow/experiments/search?max_results=1"
        stranger = self._ask("GET", path).status_code
        other = self._ask("GET", path, self._accounts.owner, host="other.invalid").status_code
        two = self._ask_two_hosts(path)
        if (stranger, other, two) != (401, 403, 400):
            raise ServeError(
                f"MLflow {self.version} does not keep strangers out (without a login it answers "
                f"{stranger}, to another host {other}, to two hosts at once {two}): nothing is "
                "served. pip install -U 'mlflow[auth]' uvicorn h11 fastapi starlette"
            )

    def _ask_two_hosts(self, path: str) -> int:
        address = urllib.parse.urlsplit(self.local_address)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(
            address.hostname, self.port, timeout=_ANSWER_SECONDS
        )
        with contextlib.closing(connection):
            connection.putrequest("GET", path, skip_host=True)
            for suffix in ("/version?", ""):
                connection.putheader("Host", f"{_LOOPBACK[1]}:{self.port}{suffix}")
            connection.endheaders()
            return connection.getresponse().status

    def _ask(
        self,
        method: str,
        path: str,
        account: Account | None = None,
        content: object = None,
        host: str | None = None,
    ) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # neither proxies nor .netrc
            return session.request(
                method,
                self.local_address + path,
                auth=(account.user, account.password) if account else None,
                json=content,
                headers={"Host": host or f"127.0.0.1:{self.port}"},
                timeout=_ANSWER_SECONDS,
                allow_redirects=False,
            )


_CONFIGURATION = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///basic_auth.db
authorization_function = jaxrl.server.login:authenticate
auth_cache_ttl_seconds = 60
"""
