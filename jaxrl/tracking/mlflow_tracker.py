"""MLflow: a parent run for the sweep, a nested run for each configuration."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.models import MODEL, write_model
from jaxrl.search.table import format_cell
from jaxrl.tracking import preflight
from jaxrl.tracking.credentials import public_uri, take_credentials
from jaxrl.tracking.mlflow_client import load_mlflow
from jaxrl.tracking.preflight import Preflight, explain
from jaxrl.tracking.projection import Description, RunUpdate
from jaxrl.tracking.tracker import TrackerError

T = TypeVar("T")

_MAX_METRICS = 800  # of the 1,000 entities of a request, leaving room for params and tags
_SWEEP_TAG, _CONFIG_TAG = "jaxrl.sweep", "jaxrl.config"


class MlflowTracker:
    """Sends run updates to MLflow, a request for a run's creation, its points and its end.

    Args:
        tracking_uri: MLflow's, a user and password in it allowed; None for what MLflow would use.

    Raises:
        InputError: the address is none that MLflow can use.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        description: Description,
    ) -> None:
        self._mlflow = mlflow = load_mlflow()
        self._client_uri = take_credentials(tracking_uri or mlflow.get_tracking_uri())
        self.uri = public_uri(self._client_uri)
        self.requests = 0
        self._notes: list[str] = []
        self._description = description
        if "://" not in self.uri and not self.uri.startswith("databricks"):
            raise InputError(
                f"the tracking URI {self.uri!r} names a folder, where MLflow keeps no runs any more: "
                "give --tracking-uri sqlite:///FILE.db or http://SERVER, or --no-track."
            )
        if not description.experiment.strip():
            raise InputError("--experiment is empty: give the MLflow experiment a name.")
        self._runs: dict[int | None, str] = {}
        self._are_known = True
        """Whether every run that MLflow has of this sweep is among them."""
        self._gone: set[int] = set()
        self._is_described = False
        self._client: Any = None
        self._experiment_id: str | None = None
        self._found = Preflight(self.uri)

    @property
    def notes(self) -> Sequence[str]:
        """See :mod:`jaxrl.tracking.tracker`."""
        return self._notes

    @property
    def state(self) -> dict[str, Any]:
        """See :mod:`jaxrl.tracking.tracker`."""
        return {"runs": {"parent" if c is None else str(c): id_ for c, id_ in self._runs.items()}}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """See :mod:`jaxrl.tracking.tracker`."""
        runs = state.get("runs", {})
        self._runs = {None if c == "parent" else int(c): run_id for c, run_id in runs.items()}
        self._are_known = False

    def connect(self) -> Sequence[str]:
        """Looks whether the server answers, lets us in and has the experiment, and may be written to;
        lines that say so.

        Raises:
            InputError: it does not.
        """
        is_remote = self.uri.startswith("http")
        try:
            if is_remote:
                self._found = self._ask(preflight.look, self.uri)
            self._connect()
        except Exception as error:  # whatever the client raises
            reason = str(error) if isinstance(error, InputError) else explain(error, self.uri)
            raise InputError(
                f"the tracking server at {self.uri} cannot be used: {reason.rstrip('.')}. Give another "
                "--tracking-uri (a sweep trains without any with --no-track)."
            ) from None
        return self._found.lines(self._description.experiment) if is_remote else []

    def _connect(self) -> None:
        if self._client is None:
            self._client = self._mlflow.MlflowClient(tracking_uri=self._client_uri)
        if self._experiment_id is None:
            self._experiment_id = self._experiment(self._description.experiment)

    def _experiment(self, name: str) -> str:
        found, is_new = self._found, False
        experiment = self._ask(found.timed, self._client.get_experiment_by_name, name)
        if experiment is None:
            made = self._ask(found.timed, self._client.create_experiment, name)
            experiment, is_new = self._ask(found.timed, self._client.get_experiment, made), True
        if experiment.lifecycle_stage != "active":
            raise InputError(
                f"the MLflow experiment {name!r} was deleted: restore it, or give another "
                "--experiment."
            )
        if self.uri.startswith("http"):
            preflight.judge_artifacts(found, experiment.artifact_location)
            if not is_new:
                tag = (preflight.TAG, self._description.name)
                self._ask(
                    found.timed, self._client.set_experiment_tag, experiment.experiment_id, *tag
                )
        return experiment.experiment_id

    def apply(self, update: RunUpdate) -> None:
        """Sends one update.

        Raises:
            TrackerError: refused for good.
            Exception: anything else may pass; the same update can be applied again.
        """
        try:
            self._connect()
            if update.config not in self._gone:
                self._send(update)
        except InputError as error:
            raise TrackerError(str(error)) from None
        except self._mlflow.MlflowException as error:
            if not self._is_permanent(error):
                raise
            if update.config is None or not self._is_gone(update.config):
                raise TrackerError(explain(error, self.uri)) from None
            self._gone.add(update.config)
            self._notes.append(f"the run of config {update.config} was deleted and is left alone")

    def _send(self, update: RunUpdate) -> None:
        run_id = self._run_of(update)
        for metrics in _parts(update.metrics, _MAX_METRICS):
            self._log(run_id, update, metrics)
        if update.status == "RUNNING":
            self._ask(self._client.update_run, run_id, update.status)
        elif update.status is not None:
            self._ask(self._client.set_terminated, run_id, update.status, end_time=update.time)

    def attach(self, path: pathlib.Path) -> None:
        """Attaches a file to the parent run, if there is one."""
        if None in self._runs:
            self._connect()
            if not self._found.takes_artifacts:
                return
            self._ask(self._client.log_artifact, self._runs[None], str(path))

    def keep(self, policy: Policy, name: str | None) -> str | None:
        """Keeps a policy with the parent run as a model, and registers it; what it then is called."""
        if None not in self._runs:
            return None
        self._connect()
        if not self._found.takes_artifacts:
            return None
        parent = self._runs[None]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / MODEL
            write_model(policy, path)
            self._ask(self._client.log_artifacts, parent, str(path), MODEL)
        return None if name is None else self._register(parent, name)

    def _register(self, run_id: str, name: str) -> str:
        """A new version of the model ``name``, which is made where there is none."""
        try:
            self._ask(self._client.create_registered_model, name)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        run = self._ask(self._client.get_run, run_id)
        source = f"{run.info.artifact_uri}/{MODEL}"
        version = self._ask(
            self._client.create_model_version, name, source, run_id, await_creation_for=0
        )
        return f"models:/{name}/{version.version}"

    def _is_permanent(self, error: Any) -> bool:
        """Whether an exception of MLflow's is a refusal that stands. An answer over HTTP that is none
        of MLflow's own may be a tunnel's, whose other end is away for a while."""
        if "ERR_NGROK_" in str(error):
            return False
        is_own = isinstance(error, self._mlflow.exceptions.RestException)
        is_local = not self.uri.startswith("http")
        status = error.get_http_status_code()
        return status in (401, 403) or (status in (400, 404) and (is_own or is_local))

    def _is_gone(self, config: int) -> bool:
        """Whether a configuration's run has been deleted, and the sweep's own has not."""
        return config in self._runs and self._is_deleted(config) and not self._is_deleted(None)

    def _is_deleted(self, config: int | None) -> bool:
        try:
            run = self._ask(self._client.get_run, self._runs[config])
        except self._mlflow.MlflowException as error:
            if self._is_permanent(error):
                return True
            raise
        return run.info.lifecycle_stage == "deleted"

    def _run_of(self, update: RunUpdate) -> str:
        """The id of an update's run, which is made where there is none; the parent always first."""
        self._look_for_runs()
        parent = self._runs.get(None) or self._create(
            None, update.began, self._description.name, {}
        )
        if not self._is_described:
            params = {name: format_cell(v) for name, v in self._description.params.items()}
            self._log(parent, RunUpdate(None, update.began, params=params), [])
            self._is_described = True
        config = update.config
        if config in self._runs:
            return self._runs[config]
        tags = {"mlflow.parentRunId": parent, _CONFIG_TAG: str(config)}
        return self._create(config, update.began, f"config-{config:04d}", tags)

    def _look_for_runs(self) -> None:
        """Finds the sweep's runs by their tags, where some may have been made that are not known."""
        token: str | None = None
        while not self._are_known:
            page = self._ask(
                self._client.search_runs,
                [self._experiment_id],
                f"tags.`{_SWEEP_TAG}` = '{self._description.sweep_id}'",
                max_results=1000,
                page_token=token,
            )
            for run in page:
                config = run.data.tags.get(_CONFIG_TAG)
                self._runs.setdefault(None if config is None else int(config), run.info.run_id)
            token = page.token
            self._are_known = not token

    def _create(self, config: int | None, began: int, name: str, tags: dict[str, str]) -> str:
        tags = {_SWEEP_TAG: self._description.sweep_id, **tags}
        self._are_known = False  # until its answer is here
        run = self._ask(
            self._client.create_run,
            self._experiment_id,
            start_time=began,
            tags=tags,
            run_name=name,
        )
        self._runs[config] = run.info.run_id
        self._are_known = True
        return run.info.run_id

    def _log(self, run_id: str, update: RunUpdate, metrics: Sequence[Any]) -> None:
        entities = self._mlflow.entities
        params = [entities.Param(key, value) for key, value in update.params.items()]
        tags = [entities.RunTag(key, value) for key, value in update.tags.items()]
        points = [entities.Metric(m.key, m.value, m.time, m.step) for m in metrics]
        if params or tags or points:
            self._ask(self._client.log_batch, run_id, metrics=points, params=params, tags=tags)

    def _ask(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A request, counted."""
        self.requests += 1
        return method(*args, **kwargs)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    """``items`` in parts of at most ``size``, and one empty part where there are none."""
    for start in range(0, max(len(items), 1), size):
        yield items[start : start + size]
