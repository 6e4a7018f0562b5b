"""MLflow: a parent run for the sweep, a nested run for each configuration."""

import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from jaxrl.errors import InputError, brief
from jaxrl.search.table import format_cell
from jaxrl.tracking.projection import Description, RunUpdate

# MLflow's own retries would hold a request for four minutes; the follower has its own.
_CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_MAX_METRICS = 800  # of the 1,000 entities of a request, leaving room for params and tags
_PERMANENT = (400, 401, 403)


class TrackerError(RuntimeError):
    """A tracker refused something for good; trying again would not help."""


class MlflowTracker:
    """Sends run updates to MLflow, one request a run and update.

    Raises:
        InputError: the server does not answer, or refuses the experiment; nothing was written.
    """

    def __init__(self, tracking_uri: str | None, description: Description) -> None:
        for name, value in _CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        import mlflow  # slow to import, and needed only where something is tracked

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._mlflow = mlflow
        self.uri = tracking_uri or mlflow.get_tracking_uri()
        self._description = description
        if "://" not in self.uri and not self.uri.startswith("databricks"):
            raise InputError(
                f"the tracking URI {self.uri!r} names a folder, where MLflow keeps no runs any more: "
                "give --tracking-uri sqlite:///FILE.db or http://SERVER, or --no-track."
            )
        if not description.experiment.strip():
            raise InputError("--experiment is empty: give the MLflow experiment a name.")
        self._runs: dict[int | None, str] = {}
        self._described = False
        try:
            self._client = mlflow.MlflowClient(tracking_uri=self.uri)
            self._experiment_id = self._experiment(description.experiment)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the tracking server at {self.uri} cannot be used: {brief(error)}. Give another "
                "--tracking-uri, or --no-track to train without MLflow."
            ) from None

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.create_experiment(name)
        if experiment.lifecycle_stage != "active":
            raise InputError(
                f"the MLflow experiment {name!r} was deleted: restore it, or give another "
                "--experiment."
            )
        return experiment.experiment_id

    def apply(self, update: RunUpdate) -> None:
        """Sends one update.

        Raises:
            TrackerError: refused for good.
            Exception: anything else may pass; the same update can be applied again.
        """
        try:
            run_id = self._run_of(update)
            for metrics in _parts(update.metrics, _MAX_METRICS):
                self._log(run_id, update, metrics)
            if update.status is not None:
                self._client.set_terminated(run_id, update.status, end_time=update.time)
        except self._mlflow.MlflowException as error:
            if error.get_http_status_code() in _PERMANENT:
                raise TrackerError(brief(error)) from None
            raise

    def log_artifact(self, path: pathlib.Path) -> None:
        """Attaches a file to the parent run."""
        if None in self._runs:
            self._client.log_artifact(self._runs[None], str(path))

    def _run_of(self, update: RunUpdate) -> str:
        """The id of an update's run, which is made where there is none; the parent always first."""
        parent = self._runs.get(None) or self._create(
            None, update.began, self._description.name, {}
        )
        if not self._described:
            params = {name: format_cell(v) for name, v in self._description.params.items()}
            self._log(parent, RunUpdate(None, update.began, params=params), [])
            self._described = True
        config = update.config
        if config in self._runs:
            return self._runs[config]
        tags = {"mlflow.parentRunId": parent, "jaxrl.config": str(config)}
        return self._create(config, update.began, f"config-{config:04d}", tags)

    def _create(self, config: int | None, began: int, name: str, tags: dict[str, str]) -> str:
        tags = {"jaxrl.sweep": self._description.sweep_id, **tags}
        run = self._client.create_run(
            self._experiment_id, start_time=began, tags=tags, run_name=name
        )
        self._runs[config] = run.info.run_id
        return run.info.run_id

    def _log(self, run_id: str, update: RunUpdate, metrics: Sequence[Any]) -> None:
        entities = self._mlflow.entities
        params = [entities.Param(key, value) for key, value in update.params.items()]
        tags = [entities.RunTag(key, value) for key, value in update.tags.items()]
        points = [entities.Metric(m.key, m.value, m.time, m.step) for m in metrics]
        if params or tags or points:
            self._client.log_batch(run_id, metrics=points, params=params, tags=tags)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    """``items`` in parts of at most ``size``, and one empty part where there are none."""
    for start in range(0, max(len(items), 1), size):
        yield items[start : start + size]
