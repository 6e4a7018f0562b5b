"""What the sweep's account may ask of MLflow's server, beyond MLflow's own permissions.

MLflow's permissions say whose experiments an account sees. They do not keep it from what has nothing to
do with experiments (an assistant that runs commands on the server's machine, gateways, lists of
users) or from experiments whose files lie anywhere on the server's disk. So the account that is
given away may do what a sweep and its page need, and nothing else.
"""

import json
import re
from typing import Any

_API = r"/(?:ajax-)?api/[23]\.0"
_GET = (
    r"/|/version|/favicon\.ico|/get-artifact|"
    rf"{_API}/mlflow/(?:experiments/(?:get|get-by-name|search)|runs/get|artifacts/list|"
    r"metrics/get-history(?:-bulk|-bulk-interval)?|users/current|server-info|ui-telemetry|"
    r"registered-models/(?:get|alias|get-latest-versions)|model-versions/get(?:-download-uri)?)|"
    rf"{_API}/mlflow-artifacts/artifacts(?:/.*)?"
)
_POST = (
    rf"/graphql|{_API}/mlflow/(?:"
    r"experiments/(?:create|search|set-experiment-tag|search-datasets|update|delete|restore)|"
    r"runs/(?:create|search|update|log-batch|log-metric|log-parameter|set-tag|delete-tag|delete|"
    r"restore)|logged-models/search|registered-models/(?:create|get-latest-versions)|"
    r"model-versions/create)"
)
_PERMITTED = {
    "GET": re.compile(_GET),
    "HEAD": re.compile(_GET),
    "POST": re.compile(_POST),
    "PUT": re.compile(rf"{_API}/mlflow-artifacts/artifacts/.+"),
}
_CREATION = re.compile(rf"{_API}/mlflow/experiments/create")
_REGISTRATION = re.compile(rf"{_API}/mlflow/model-versions/create")
_KEPT_HERE = "mlflow-artifacts:/"
_ASSISTANT = re.compile(r"assistant", re.IGNORECASE)


def is_for_nobody(path: str) -> bool:
    """Whether a path leads to MLflow's assistant, which runs commands on this machine for whoever
    comes from the loopback, where every tunnel comes from."""
    return "/mlflow/" in path and _ASSISTANT.search(path) is not None


def is_for_sweeps(method: str, path: str, body: bytes) -> bool:
    """Whether the sweep's account may send a request."""
    pattern = _PERMITTED.get(method)
    if pattern is None or not pattern.fullmatch(path):
        return False
    if method == "POST" and _CREATION.fullmatch(path):
        return not _names_a_place(body)
    if method == "POST" and _REGISTRATION.fullmatch(path):
        return _is_kept_here(body)
    return True


def _names_a_place(body: bytes) -> bool:
    """Whether the creation of an experiment says where its files go; also where nobody can tell."""
    names = {name.replace("_", "").lower() for name in _content(body) or {"artifact_location": ""}}
    return "artifactlocation" in names


def _is_kept_here(body: bytes) -> bool:
    """Whether the files of a model that is registered are a run's, in the server's own store, where
    MLflow's permissions hold, and not anywhere on its disk."""
    source = (_content(body) or {}).get("source")
    return isinstance(source, str) and source.startswith(_KEPT_HERE)


def _content(body: bytes) -> dict[str, Any] | None:
    """What a request says; None where nobody can tell."""
    try:
        content: Any = json.loads(body)
        while isinstance(content, str):  # as MLflow does, for old clients
            content = json.loads(content)
        return content if isinstance(content, dict) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
