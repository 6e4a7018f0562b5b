"""What the account that is given away may ask for."""

import json

import pytest

from jaxrl.server.permits import is_for_nobody, is_for_sweeps

NEEDED = [
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/api/2.0/mlflow/experiments/get-by-name"),
    ("GET", "/api/2.0/mlflow/runs/get"),
    ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/2/artifacts/results.csv"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/2/artifacts/results.csv"),
    ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/api/2.0/mlflow/experiments/set-experiment-tag"),
    ("POST", "/api/2.0/mlflow/runs/create"),
    ("POST", "/api/2.0/mlflow/runs/log-batch"),
    ("POST", "/api/2.0/mlflow/runs/update"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search"),
    ("POST", "/api/2.0/mlflow/registered-models/create"),
    ("POST", "/graphql"),
]
NOT_NEEDED = [
    ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
    ("PUT", "/ajax-api/3.0/mlflow/assistant/config"),
    ("GET", "/api/2.0/mlflow/users/list"),
    ("POST", "/api/2.0/mlflow/users/create"),
    ("GET", "/signup"),
    ("POST", "/api/2.0/mlflow/registered-models/delete"),
    ("GET", "/model-versions/get-artifact"),
    ("POST", "/ajax-api/3.0/mlflow/gateway/secrets/create"),
    ("POST", "/gateway/chat"),
    ("POST", "/ajax-api/3.0/mlflow/demo/generate"),
    ("POST", "/ajax-api/3.0/jobs/"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact"),
    ("POST", "/v1/traces"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1"),
    ("GET", "/api/2.0/mlflow/runs/get/../../users/list"),
    ("GET", "/x/api/2.0/mlflow/runs/get"),
    ("OPTIONS", "/"),
]


@pytest.mark.parametrize(("method", "path"), NEEDED)
def test_what_a_sweep_and_its_pages_need_is_permitted(method, path):
    assert is_for_sweeps(method, path, b'{"name": "mine"}')
    assert not is_for_nobody(path)


@pytest.mark.parametrize(
    ("source", "is_permitted"),
    [
        ("mlflow-artifacts:/1/2/artifacts/model", True),
        ("mlflow-artifacts://elsewhere/1/2/artifacts/model", True),  # MLflow asks whose run it is
        ("/etc", False),
        ("file:///etc", False),
        ("http://elsewhere/model", False),
        ("", False),
        (None, False),
        (["mlflow-artifacts:/1"], False),
    ],
)
def test_a_model_is_registered_from_a_run_of_the_server_and_from_nowhere_else(source, is_permitted):
    path, body = "/api/2.0/mlflow/model-versions/create", {"name": "mine", "source": source}
    assert is_for_sweeps("POST", path, json.dumps(body).encode()) == is_permitted
    assert is_for_sweeps("POST", path, json.dumps(json.dumps(body)).encode()) == is_permitted
    assert not is_for_sweeps("POST", path, b"no JSON")


@pytest.mark.parametrize(("method", "path"), NOT_NEEDED)
def test_everything_else_is_not(method, path):
    assert not is_for_sweeps(method, path, b"{}")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "artifact_location": "/etc"},
        {"name": "x", "artifactLocation": "/etc"},
        {"name": "x", "Artifact_Location": "/etc"},
    ],
)
def test_an_experiment_whose_files_lie_elsewhere_is_not(body):
    path = "/ajax-api/2.0/mlflow/experiments/create"
    text = json.dumps(body)
    escaped = text.replace("a", "\\u0061").replace("A", "\\u0041")
    for sent in (text, escaped, json.dumps(text), json.dumps(json.dumps(text))):
        assert not is_for_sweeps("POST", path, sent.encode())


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\xff", b"[1]", b"3", b'["x"]', 9999 * b"["])
def test_a_creation_that_nobody_can_read_is_not(body):
    assert not is_for_sweeps("POST", "/api/2.0/mlflow/experiments/create", body)


def test_the_assistant_is_for_nobody():
    for path in ("/ajax-api/3.0/mlflow/assistant/config", "/ajax-api/3.0/mlflow/ASSISTANT"):
        assert is_for_nobody(path)
    assert not is_for_nobody("/api/2.0/mlflow/experiments/get-by-name")
