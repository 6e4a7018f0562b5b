"""A tracking server looked at before a sweep starts: what would fail later, said now and in words."""

import dataclasses
import ipaddress
import re
import statistics
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

from packaging.version import InvalidVersion, Version

from jaxrl.errors import InputError, brief
from jaxrl.ngrok_errors import explain as explain_ngrok
from jaxrl.tracking.credentials import user

T = TypeVar("T")

OLDEST_SERVER = Version("2.0")
SAFE_SERVER = Version("3.11.1")
"""Older ones let some requests pass without a login (CVE-2026-2652, CVE-2026-0545)."""
TAG = "jaxrl.last_sweep"
"""Of an experiment that was there already: whether it can be set tells whether runs can be made."""
_SLOW_SECONDS = 1.0


@dataclasses.dataclass
class Preflight:
    """What was found out about the server at ``uri``."""

    uri: str
    version: str | None = None
    """As it says; None where it does not."""
    seconds: list[float] = dataclasses.field(default_factory=list)
    """That each request took."""
    artifacts: str = "kept through the server"
    takes_artifacts: bool = True
    warnings: list[str] = dataclasses.field(default_factory=list)

    def timed(self, request: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What a request answers, timed."""
        began = time.monotonic()
        try:
            return request(*args, **kwargs)
        finally:
            self.seconds.append(time.monotonic() - began)

    def lines(self, experiment: str) -> list[str]:
        """All of it for people."""
        name = f"MLflow {self.version}" if self.version else "a server of unknown version"
        login = f"logged in as {user()}" if user() else "without a login"
        seconds = statistics.median(self.seconds)
        took = f"{seconds:.1f} s" if seconds >= _SLOW_SECONDS else f"{1000 * seconds:.0f} ms"
        line = (
            f"tracking: {self.uri}: {name}, {login}, may write to {experiment!r}, files are "
            f"{self.artifacts}, a request takes {took}"
        )
        return [line, *(f"warning: {text}" for text in self.warnings)]


def look(uri: str) -> Preflight:
    """Asks the server at an HTTP address who it is.

    Raises:
        InputError: nothing answers there, or something that cannot be used.
        Exception: what MLflow's client raises; :func:`explain` says what it means.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    found = Preflight(uri)
    answer = found.timed(
        http_request,
        get_default_host_creds(uri),
        "/version",
        "GET",
        max_retries=0,
        raise_on_status=False,
    )
    code = answer.headers.get("Ngrok-Error-Code", "")
    if code or not (answer.ok or answer.status_code == 404):  # 404: it does not say its version
        raise InputError(explain_answer(answer.status_code, f"{code} {answer.text}", uri))
    try:
        found.version = str(Version(answer.text.strip())) if answer.ok else None
    except InvalidVersion:
        found.version = None
    if found.version is not None:
        _judge_version(found, Version(found.version))
    if uri.startswith("http:") and user() and not _is_here(uri):
        found.warnings.append("the password crosses the network unencrypted: use https")
    return found


def judge_artifacts(found: Preflight, location: str) -> None:
    """Says where files of an experiment go: through the server, to a store, or to a disk."""
    scheme = urllib.parse.urlsplit(location).scheme
    if scheme == "mlflow-artifacts":
        return
    if scheme not in ("", "file"):
        found.artifacts = f"sent to {scheme}: from here"
    elif _is_here(found.uri):
        found.artifacts = f"in {location}"
    else:
        found.artifacts, found.takes_artifacts = "not sent", False
        found.warnings.append(
            f"files of this experiment would be written to {location} on this machine, and are not "
            "sent: start the server with --serve-artifacts --artifacts-destination DIR (jaxrl.serve "
            "does) and give a new --experiment"
        )


def explain(error: BaseException, uri: str) -> str:
    """What an exception of MLflow's client means, and what helps, in a line."""
    text = str(error)
    status = re.search(r"error code (\d{3})", text)
    by_name = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
    named = next((code for name, code in by_name.items() if name in text), 0)
    return explain_answer(int(status[1]) if status else named, text, uri)


def explain_answer(status: int, text: str, uri: str) -> str:
    """What an HTTP answer means, and what helps, in a line; ``status`` 0 where there was none."""
    netloc = urllib.parse.urlsplit(uri).netloc
    if tunnel := explain_ngrok(text):
        return f"the tunnel answers: {tunnel}"
    if "Invalid Host header" in text:
        return (
            f"MLflow refuses the host name of this address: start it with --allowed-hosts "
            f"'localhost,localhost:5000,127.0.0.1,127.0.0.1:5000,{netloc}' (jaxrl.serve does)"
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return "it does not speak HTTPS: write http:// in the address"
    if "must be in the 'active' state" in text:
        return "the sweep's experiment or parent run was deleted there: restore it in MLflow's page"
    if status == 401 and user():
        return (
            f"it does not accept this password of {user()}: take the connection string again from "
            "connection.txt, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if status == 401:
        return (
            "it asks for a login: give https://USER:PASSWORD@HOST as the tracking URI (jaxrl.serve "
            "writes one to connection.txt), or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if status == 403:
        who = f"the account {user()}" if user() else "who is not logged in"
        return (
            f"{who} may not write there, or the experiment belongs to another account: give another "
            "--experiment"
        )
    if status == 429 and "passwords" in text:
        return "after many wrong passwords it holds logins back: try again in a minute"
    return brief(Exception(text)) if text.strip() else f"it answers {status} without a word"


def _judge_version(found: Preflight, version: Version) -> None:
    if version < OLDEST_SERVER:
        raise InputError(
            f"the MLflow {version} there is too old: it must be {OLDEST_SERVER} or newer "
            "(pip install -U mlflow)"
        )
    if version < SAFE_SERVER:
        found.warnings.append(
            f"the MLflow {version} there has known holes (CVE-2026-2652, CVE-2026-0545): update it to "
            f"{SAFE_SERVER} or newer before it is reachable from elsewhere"
        )


def _is_here(uri: str) -> bool:
    """Whether an address is this machine's own."""
    host = urllib.parse.urlsplit(uri).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
