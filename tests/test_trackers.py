"""What every tracker must do: the contract of ``jaxrl.tracking.tracker``."""

import dataclasses
import io
import itertools
import json
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from rich.console import Console

from jaxrl.errors import InputError
from jaxrl.tracking.lines_tracker import ConsoleTracker, JsonLinesTracker
from jaxrl.tracking.mlflow_tracker import MlflowTracker
from jaxrl.tracking.projection import Description, Metric, RunUpdate

pytest_plugins = ["mlflow_server"]

NOW = 1_700_000_000_000
_number = itertools.count()


class MemoryTracker:
    """Keeps runs in ``store``, which outlives it."""

    uri, notes = "memory:", ()

    def __init__(self, store):
        self.store, self.requests, self.state = store, 0, {}

    def go_on(self, state): ...
    def connect(self): ...

    def apply(self, update):
        self.requests += 1
        run = self.store.setdefault(update.config, {"points": set(), "params": {}, "status": None})
        run["points"] |= {(m.key, m.step, m.time, m.value) for m in update.metrics}
        run["params"] |= update.params
        run["status"] = update.status or run["status"]

    def attach(self, path):
        self.store.setdefault("files", {})[path.name] = path.read_text()


@dataclasses.dataclass
class Place:
    """Where a tracker keeps things: how to open it once more, and how to read what is there."""

    open: Callable[[], Any]
    read: Callable[[], dict] | None
    """Runs by configuration: points, params, status, files; None where it is only shown."""


def describe():
    return Description(
        "name",
        f"id-{next(_number)}",
        f"trackers-{next(_number)}",
        {},
        [{}] * 3,
        [0, 1, 2],
        [0, 1, 2],
    )


def mlflow_place(uri):
    description = describe()

    def read():
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name(description.experiment)
        kept = {"files": {}}
        for run in client.search_runs([experiment.experiment_id]):
            config = run.data.tags.get("jaxrl.config")
            config = None if config is None else int(config)
            assert config not in kept, "a second run"
            points = {
                (m.key, m.step, m.timestamp, m.value)
                for key in run.data.metrics
                for m in client.get_metric_history(run.info.run_id, key)
            }
            status = run.info.status
            kept[config] = {
                "points": points,
                "params": run.data.params,
                "status": None if status == "RUNNING" else status,
            }
            for artifact in client.list_artifacts(run.info.run_id):
                path = client.download_artifacts(run.info.run_id, artifact.path)
                with open(path) as file:
                    kept["files"][artifact.path] = file.read()
        return kept

    return Place(lambda: MlflowTracker(uri, description), read)


def jsonl_place(path):
    def read():
        memory = MemoryTracker({"files": {}})
        for line in path.read_text().splitlines():
            content = json.loads(line)
            if "artifact" in content:
                memory.store["files"][content["artifact"]] = content["text"]
                continue
            metrics = [Metric(**metric) for metric in content.pop("metrics")]
            memory.apply(RunUpdate(**content, metrics=metrics))
        return memory.store

    return Place(lambda: JsonLinesTracker(path), read)


@pytest.fixture(params=["mlflow sqlite", "mlflow server", "json lines", "console", "memory"])
def place(request, tmp_path):
    if request.param == "mlflow sqlite":
        return mlflow_place(f"sqlite:///{tmp_path / 'mlflow.db'}")
    if request.param == "mlflow server":
        return mlflow_place(request.getfixturevalue("mlflow_server"))
    if request.param == "json lines":
        return jsonl_place(tmp_path / "lines.jsonl")
    if request.param == "console":
        text = io.StringIO()
        return Place(lambda: ConsoleTracker(Console(file=text)), None)
    store = {"files": {}}
    return Place(lambda: MemoryTracker(store), lambda: store)


def update(config, *steps, **fields):
    metrics = [Metric("eval/return_mean", step / 7, NOW + step, step) for step in steps]
    return RunUpdate(config, NOW + max(steps, default=0), metrics, **fields)


UPDATES = [
    update(None, params={"steps": "100"}),
    update(1, 10, 20, params={"gamma": "0.9"}),
    update(0, 10),
    update(None, 10),
    update(1, 30, status="FINISHED"),
    update(0, 20, status="KILLED"),
    update(None, 20, status="KILLED"),
]


def expected():
    memory = MemoryTracker({"files": {}})
    for each in UPDATES:
        memory.apply(each)
    return memory.store


def same(kept):
    """Whether what was kept is what the updates say."""
    wanted = expected()
    for config in (None, 0, 1):
        assert kept[config]["points"] == wanted[config]["points"]
        assert kept[config]["params"].items() >= wanted[config]["params"].items()
        assert kept[config]["status"] == wanted[config]["status"]
    return set(kept) - {"files"} == {None, 0, 1}


def test_what_is_applied_is_kept(place):
    tracker = place.open()
    tracker.connect()
    for each in UPDATES:
        tracker.apply(each)
    assert place.read is None or same(place.read())


def test_the_same_updates_once_more_change_nothing(place):
    tracker = place.open()
    for each in UPDATES:
        tracker.apply(each)
        tracker.apply(each)
    assert place.read is None or same(place.read())


@pytest.mark.parametrize("remembers", [True, False], ids=["with its state", "without"])
def test_another_process_goes_on_and_may_say_again_what_was_said(place, remembers):
    first = place.open()
    for each in UPDATES[:5]:
        first.apply(each)
    state = json.loads(json.dumps(first.state)) if remembers else {}
    second = place.open()
    second.go_on(state)
    for each in UPDATES[3:]:
        second.apply(each)
    assert place.read is None or same(place.read())


def test_an_ended_run_goes_on_and_ends_again(place):
    tracker = place.open()
    for each in UPDATES:
        tracker.apply(each)
    for status in ("RUNNING", "FINISHED"):
        for config in (None, 0):
            tracker.apply(update(config, 40, status=status))
    if place.read is not None:
        kept = place.read()
        assert [kept[config]["status"] for config in (None, 0, 1)] == ["FINISHED"] * 3


def test_a_file_replaces_the_one_of_its_name(place, tmp_path):
    tracker = place.open()
    tracker.apply(UPDATES[0])
    file = tmp_path / "results.csv"
    for text in ("first", "second"):
        file.write_text(text)
        tracker.attach(file)
    assert place.read is None or place.read()["files"] == {"results.csv": "second"}


def test_requests_are_counted_and_state_is_json(place):
    tracker = place.open()
    assert tracker.requests == 0
    tracker.apply(UPDATES[1])
    assert tracker.requests >= 0
    assert json.loads(json.dumps(tracker.state)) == tracker.state
    assert list(tracker.notes) == []


def test_no_address_shows_a_password():
    for scheme in ("http", "https", "postgresql"):
        tracker = MlflowTracker(f"{scheme}://me:secret@127.0.0.1:1/x", describe())
        assert "secret" not in tracker.uri
        assert "127.0.0.1:1/x" in tracker.uri


def test_lines_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written to"):
        JsonLinesTracker(tmp_path / "none" / "lines.jsonl").connect()


def test_a_torn_line_is_left_behind(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"torn": ')
    JsonLinesTracker(path).apply(UPDATES[1])
    torn, line = path.read_text().splitlines()
    assert torn == '{"torn": '
    assert json.loads(line)["config"] == 1


def test_the_console_shows_what_is_new():
    text = io.StringIO()
    tracker = ConsoleTracker(Console(file=text))
    tracker.apply(UPDATES[1])
    tracker.apply(UPDATES[-1])
    first, last = text.getvalue().splitlines()
    assert first == "config 1: eval/return_mean 2.857 at 20"
    assert last == "sweep: eval/return_mean 2.857 at 20, killed"
