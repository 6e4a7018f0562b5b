"""The MLflow tracker against real stores: what is sent is read back, and what cannot be is said."""

import itertools
import socket
import time

import mlflow
import pytest

from jaxrl.errors import InputError
from jaxrl.tracking.mlflow_tracker import MlflowTracker, TrackerError
from jaxrl.tracking.projection import Description, Metric, RunUpdate, merge

pytest_plugins = ["mlflow_server"]

NOW = 1_700_000_000_000
_number = itertools.count()


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'mlflow.db'}"


@pytest.fixture(params=["sqlite", "server"])
def uri(request):
    """Of an embedded database, then of a server."""
    return request.getfixturevalue("sqlite_uri" if request.param == "sqlite" else "mlflow_server")


def describe(configurations=3, experiment=None, **params):
    numbers = list(range(configurations))
    return Description(
        name="my-sweep",
        sweep_id=f"id-{next(_number)}",
        experiment=experiment or f"experiment-{next(_number)}",
        params=params,
        configurations=[{"gamma": 0.9}] * configurations,
        configs=numbers,
        seeds=numbers,
    )


class Stored:
    """What a store holds of an experiment."""

    def __init__(self, uri, description):
        self.client = mlflow.MlflowClient(uri)
        self.experiment = self.client.get_experiment_by_name(description.experiment)

    @property
    def runs(self):
        return self.client.search_runs([self.experiment.experiment_id])

    @property
    def parent(self):
        (run,) = [run for run in self.runs if "mlflow.parentRunId" not in run.data.tags]
        return run

    def child(self, config):
        tag = str(config)
        (run,) = [run for run in self.runs if run.data.tags.get("jaxrl.config") == tag]
        return run

    def points(self, run, key):
        history = self.client.get_metric_history(run.info.run_id, key)
        return sorted((m.step, m.timestamp, m.value) for m in history)


def points(count, key="eval/return_mean"):
    return [Metric(key, k / 3, NOW + 10 * k, 100 * k) for k in range(1, count + 1)]


def triples(metrics):
    return [(m.step, m.time, m.value) for m in metrics]


def test_a_sweep_is_a_parent_run_with_a_nested_run_for_each_configuration(uri):
    description = describe(steps=50_000, space="cartpole", select="last", seeds=[1, 2])
    tracker = MlflowTracker(uri, description)
    for config in (1, 0):
        tracker.apply(RunUpdate(config, NOW, points(1), {"gamma": "0.9", "seeds": "[0]"}))
    tracker.apply(RunUpdate(None, NOW, points(1, "population/eval_return_best")))
    stored = Stored(uri, description)
    assert len(stored.runs) == 3
    parent = stored.parent
    specification = {"steps": "50000", "space": "cartpole", "select": "last", "seeds": "[1, 2]"}
    assert parent.data.params == specification
    assert parent.info.run_name == "my-sweep"
    assert parent.data.tags["jaxrl.sweep"] == description.sweep_id
    assert parent.data.metrics == {"population/eval_return_best": 1 / 3}
    for config in (0, 1):
        run = stored.child(config)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {"gamma": "0.9", "seeds": "[0]"}
        assert run.data.metrics == {"eval/return_mean": 1 / 3}
        assert str(config) in run.info.run_name
    assert {run.info.status for run in stored.runs} == {"RUNNING"}


def test_metrics_arrive_with_their_steps_and_times(uri):
    description = describe()
    tracker = MlflowTracker(uri, description)
    first, second = points(5), points(3, "train/loss")
    tracker.apply(RunUpdate(0, NOW, first[:2] + second))
    tracker.apply(RunUpdate(0, NOW, first[2:]))
    stored = Stored(uri, description)
    assert stored.points(stored.child(0), "eval/return_mean") == triples(first)
    assert stored.points(stored.child(0), "train/loss") == triples(second)


def test_runs_end_with_their_status_at_their_time(uri):
    description = describe()
    tracker = MlflowTracker(uri, description)
    for config, status in ((0, "FINISHED"), (1, "KILLED"), (2, "FAILED")):
        tracker.apply(RunUpdate(config, NOW, points(1)))
        tracker.apply(RunUpdate(config, NOW + 1000 + config, points(2), status=status))
    tracker.apply(RunUpdate(None, NOW + 5000, status="KILLED"))
    stored = Stored(uri, description)
    ends = {c: (stored.child(c).info.status, stored.child(c).info.end_time) for c in range(3)}
    assert ends == {
        0: ("FINISHED", NOW + 1000),
        1: ("KILLED", NOW + 1001),
        2: ("FAILED", NOW + 1002),
    }
    assert (stored.parent.info.status, stored.parent.info.end_time) == ("KILLED", NOW + 5000)
    assert stored.points(stored.child(1), "eval/return_mean") == triples(points(2))


def test_tags_arrive(sqlite_uri):
    description = describe()
    tracker = MlflowTracker(sqlite_uri, description)
    tracker.apply(RunUpdate(0, NOW, tags={"diverged": "true"}))
    assert Stored(sqlite_uri, description).child(0).data.tags["diverged"] == "true"


def test_a_run_starts_no_later_than_its_first_point_however_late_it_is_sent(sqlite_uri):
    description = describe()
    updates = [RunUpdate(0, m.time, [m]) for m in points(3)]
    updates.append(RunUpdate(0, NOW + 60_000, status="FINISHED"))
    MlflowTracker(sqlite_uri, description).apply(merge(updates)[0])
    stored = Stored(sqlite_uri, description)
    assert stored.child(0).info.end_time == NOW + 60_000
    assert stored.child(0).info.start_time <= NOW + 10
    assert stored.parent.info.start_time <= NOW + 10


def test_more_points_than_a_request_holds_arrive(mlflow_server):
    description = describe()
    many = points(2345)
    params = {f"p{k}": str(k) for k in range(100)}
    MlflowTracker(mlflow_server, description).apply(RunUpdate(0, NOW, many, params))
    stored = Stored(mlflow_server, description)
    assert stored.points(stored.child(0), "eval/return_mean") == triples(many)
    assert stored.child(0).data.params == params


def test_applying_an_update_again_adds_nothing(uri):
    description = describe(steps=1)
    tracker = MlflowTracker(uri, description)
    tags = {"diverged": "true"}
    updates = [
        RunUpdate(0, NOW, points(3), {"gamma": "0.9"}, tags),
        RunUpdate(None, NOW, points(2, "population/eval_return_best")),
        RunUpdate(0, NOW + 99, points(4)[3:], status="FINISHED"),
    ]
    stored = []
    for update in [*updates, *updates]:
        tracker.apply(update)
        now = Stored(uri, description)
        child, parent = now.child(0), now.parent
        stored.append(
            (
                len(now.runs),
                now.points(child, "eval/return_mean"),
                now.points(parent, "population/eval_return_best"),
                (child.data.params, child.data.tags.get("diverged"), parent.data.params),
                (child.info.start_time, child.info.end_time, parent.info.end_time),
            )
        )
    assert stored[2:] == [stored[2]] * 4
    assert stored[2][1] == triples(points(4))


def test_parameters_and_first_metrics_of_a_run_travel_in_one_request(mlflow_proxy):
    uri, proxy = mlflow_proxy
    tracker = MlflowTracker(uri, describe(steps=1))
    tracker.apply(RunUpdate(0, NOW, points(1), {"gamma": "0.9"}))
    proxy.calls.clear()
    tracker.apply(RunUpdate(1, NOW, points(10), {"gamma": "0.9"}, {"diverged": "true"}))
    assert proxy.calls == ["create", "log-batch"]
    tracker.apply(RunUpdate(1, NOW, points(500)[10:]))
    assert proxy.calls == ["create", "log-batch", "log-batch"]


def test_files_are_attached_to_the_parent_run(mlflow_server, tmp_path):
    (tmp_path / "results.csv").write_text("config,seed\n0,0\n")
    description = describe()
    tracker = MlflowTracker(mlflow_server, description)
    tracker.apply(RunUpdate(None, NOW, status="FINISHED"))
    tracker.attach(tmp_path / "results.csv")
    stored = Stored(mlflow_server, description)
    run_id = stored.parent.info.run_id
    assert [file.path for file in stored.client.list_artifacts(run_id)] == ["results.csv"]
    (tmp_path / "back").mkdir()
    path = stored.client.download_artifacts(run_id, "results.csv", str(tmp_path / "back"))
    with open(path) as file:
        assert file.read() == "config,seed\n0,0\n"


def test_nothing_is_printed_between_the_lines_of_the_live_view(mlflow_server, capfd):
    tracker = MlflowTracker(mlflow_server, describe())
    tracker.apply(RunUpdate(0, NOW, points(1), status="FINISHED"))
    tracker.apply(RunUpdate(None, NOW, status="FINISHED"))
    assert capfd.readouterr() == ("", "")


def test_two_sweeps_in_one_experiment_have_each_their_own_runs(sqlite_uri):
    first = describe()
    second = describe(experiment=first.experiment)
    for description in (first, second):
        MlflowTracker(sqlite_uri, description).apply(RunUpdate(0, NOW, points(1)))
    runs = Stored(sqlite_uri, first).runs
    sweeps = [run.data.tags["jaxrl.sweep"] for run in runs]
    assert sorted(sweeps) == sorted([first.sweep_id, second.sweep_id] * 2)
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs} - {None}
    assert parents == {r.info.run_id for r in runs if "mlflow.parentRunId" not in r.data.tags}


def test_parameters_of_any_length_are_no_reason_to_stop(uri):
    description = describe(note="x" * 10_000)
    tracker = MlflowTracker(uri, description)
    tracker.apply(RunUpdate(0, NOW, points(1), {"seeds": str(list(range(3000)))}))
    stored = Stored(uri, description)
    assert stored.child(0).data.params["seeds"].startswith("[0, 1, 2")
    assert stored.parent.data.params["note"].startswith("xxx")


def test_without_a_uri_it_is_where_mlflow_itself_would_write(sqlite_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    description = describe()
    tracker = MlflowTracker(None, description)
    assert tracker.uri == sqlite_uri
    tracker.apply(RunUpdate(0, NOW, points(1)))
    assert len(Stored(sqlite_uri, description).runs) == 2


def test_a_changed_parameter_is_refused_for_good(uri):
    tracker = MlflowTracker(uri, describe())
    tracker.apply(RunUpdate(0, NOW, params={"gamma": "0.9"}))
    with pytest.raises(TrackerError) as caught:
        tracker.apply(RunUpdate(0, NOW, params={"gamma": "0.5"}))
    assert "gamma" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["create", "log-batch", "update"])
def test_a_server_that_fails_for_a_while_has_everything_after_trying_again(mlflow_proxy, lost):
    description = describe(steps=50_000)
    update = RunUpdate(0, NOW, points(3), {"gamma": "0.9"}, status="FINISHED")
    uri, proxy = mlflow_proxy
    tracker = MlflowTracker(uri, description)
    proxy.refuse[lost] = 1
    with pytest.raises(Exception, match=r".") as caught:
        tracker.apply(update)
    assert not isinstance(caught.value, TrackerError)
    tracker.apply(update)
    stored = Stored(uri, description)
    assert len(stored.runs) == 2
    assert stored.points(stored.child(0), "eval/return_mean") == triples(points(3))
    assert stored.child(0).data.params == {"gamma": "0.9"}
    assert stored.child(0).info.status == "FINISHED"
    assert stored.parent.data.params == {"steps": "50000"}


def refusal(uri, description=None):
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        MlflowTracker(uri, description or describe()).connect()
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_that_is_not_there_is_said_at_once_with_the_choices():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    message = refusal(uri)
    assert uri in message
    assert "--tracking-uri" in message
    assert "--no-track" in message


def test_a_server_that_never_answers_is_said_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "--no-track" in message


def test_what_answers_but_is_no_mlflow_is_refused(mlflow_server):
    message = refusal(f"{mlflow_server}/nothing/here")
    assert "--tracking-uri" in message
    assert "--no-track" in message


@pytest.mark.parametrize(
    "uri", ["nonsense://x", "./mlruns", "file:///tmp/mlruns", "sqlite:////proc/none/mlflow.db"]
)
def test_a_uri_that_mlflow_cannot_use_is_refused_with_the_choices(uri):
    message = refusal(uri)
    assert uri in message
    assert "--tracking-uri" in message
    assert "--no-track" in message


def test_a_deleted_experiment_is_refused_by_its_name(uri):
    description = describe()
    MlflowTracker(uri, description).connect()
    stored = Stored(uri, description)
    stored.client.delete_experiment(stored.experiment.experiment_id)
    message = refusal(uri, description)
    assert description.experiment in message
    assert "--experiment" in message
    assert stored.runs == []
