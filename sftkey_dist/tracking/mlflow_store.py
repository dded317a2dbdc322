"""Logs runs to an MLflow server or store."""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import transformers
from mlflow.entities import Param, Run
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.interrupts import interruptions_kept
from sftkey_dist.run_dir.artifacts.run import RUN_IDS
from sftkey_dist.tracking.mlflow_client import connect, experiment_called, remedy_of
from sftkey_dist.tracking.mlflow_entities import input_of, metrics_of, title_of
from sftkey_dist.tracking.mlflow_metrics import MetricsOfRuns
from sftkey_dist.tracking.mlflow_models import model_made_by, note_evaluated, note_model, upload_model
from sftkey_dist.tracking.numbers import flattened
from sftkey_dist.tracking.tracker import DataSetNote, MeasuredScores, ModelNote, RunStatus

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT, _SECONDS_OF_A_CALL, _SECONDS_OF_AN_UPLOAD = "MLFLOW_HTTP_REQUEST_TIMEOUT", "10", "300"
"""A server that passes files on to an object store answers when it has done so."""
_MAX_PARAM_CHARACTERS = 500
_MAX_PARAMS = 100  # of a call


def _outlives_outages(
    method: Callable[Concatenate["MlflowTracker", P], T],
) -> Callable[Concatenate["MlflowTracker", P], T | None]:
    """Turn any error of the store into a warning, because the metrics are also in the journals of the run."""

    @functools.wraps(method)
    def guarded(self: "MlflowTracker", *arguments: P.args, **keywords: P.kwargs) -> T | None:
        try:
            with interruptions_kept():
                return method(self, *arguments, **keywords)
        except Exception as error:  # whatever the store's driver or the network raises
            self.note_failure(error, arguments[0] if arguments else None)
            return None

    return guarded  # type: ignore[return-value]  # the type of wraps() loses that self is positional


class MlflowTracker:
    """Logs to an MLflow server or store. Run ids are kept in a file, so that a repeated command continues its runs."""

    def __init__(self, uri: str, experiment: str, artifacts: Path, run_ids: Path) -> None:
        """
        Raises:
            ConfigError: The store does not answer, or the experiment was deleted.
        """
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        transformers.utils.logging.disable_progress_bar()  # for models that are logged
        for noisy in ("mlflow.transformers", "mlflow.system_metrics.system_metrics_monitor"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        # By default a dead server blocks every call for minutes (7 retries with 120 s timeouts).
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault(_TIMEOUT, _SECONDS_OF_A_CALL)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._uri, self._experiment = uri, experiment
        self._warned = False
        self._incomplete: set[object] = set()
        self._parents: dict[str, str | None] = {}
        """Of the runs that this command has begun and not ended."""
        self._run_ids_file = run_ids
        self._run_ids: dict[str, str] = _read_run_ids(run_ids)
        try:
            with interruptions_kept():
                self._client = connect(uri)
                self._metrics = MetricsOfRuns(self._client)
                location = artifacts.as_uri() if uri.startswith("sqlite") else None
                self._experiment_id = experiment_called(experiment, self._client, location)
        except ConfigError:
            raise
        except Exception as error:  # whatever the store's driver or the network raises
            raise ConfigError(
                f"tracking.uri: the MLflow store cannot be used ({in_a_line(error)}); {remedy_of(error, uri)}, or set "
                f"tracking.enabled=false"
            ) from error

    def note_failure(self, error: Exception, run_id: object) -> None:
        """Warn about the first call that failed; the run is not marked as finished, nor are those that are begun under
        it, which repeat what they log of it."""
        self._incomplete |= {run_id, *(run for run, parent in self._parents.items() if parent == run_id)}
        self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            console.print(
                f"warning: MLflow stopped answering ({in_a_line(error)}); the run goes on, its metrics are in "
                f"metrics.jsonl; `sftkey track sync RUN` uploads what is missing once MLflow answers again",
                markup=False,
            )

    @_outlives_outages
    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        """See Tracker."""
        known = self._run_ids.get(key)
        if known is not None and self._find(known) is not None:
            self._client.update_run(known, status="RUNNING")
            self._parents[known] = parent
            return known
        all_tags = dict(tags) | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
        title = title_of(name, tags, self._experiment)
        run_id = str(self._client.create_run(self._experiment_id, run_name=title, tags=all_tags).info.run_id)
        self._run_ids[key] = run_id
        write_json_atomically(self._run_ids_file, self._run_ids)
        self._parents[run_id] = parent
        return run_id

    def mlflow_run_id(self, run_id: str | None) -> str | None:
        """See Tracker."""
        return run_id

    @_outlives_outages
    def log_params(self, run_id: str | None, params: Mapping[str, object]) -> None:
        """See Tracker. MLflow refuses to change a param, so those that the run has are not logged again."""
        if run_id is None:
            return
        known = self._client.get_run(run_id).data.params
        new = [
            Param(key, str(value)[:_MAX_PARAM_CHARACTERS])
            for key, value in flattened(params, ".").items()
            if key not in known
        ]
        for start in range(0, len(new), _MAX_PARAMS):
            self._client.log_batch(run_id, params=new[start : start + _MAX_PARAMS])

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """See Tracker. What could not be sent is sent with the next records, or when the run ends."""
        if run_id is None:
            return
        try:
            with interruptions_kept():
                self._metrics.send(run_id, metrics_of(records))
        except Exception as error:  # whatever the store's driver or the network raises
            self._warn(error)

    @_outlives_outages
    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int:
        """See Tracker."""
        if run_id is None:
            return 0
        missing = self._metrics.missing(run_id, metrics_of(records))
        self._metrics.send(run_id, missing)
        return len(missing)

    @_outlives_outages
    def log_table(self, run_id: str | None, columns: Mapping[str, Sequence[object]], file: str) -> None:
        """See Tracker."""
        if run_id is None:
            return
        with self._time_to_upload(run_id):
            self._write_table(run_id, columns, file)

    def _write_table(self, run_id: str, columns: Mapping[str, Sequence[object]], file: str) -> None:
        if file not in {artifact.path for artifact in self._client.list_artifacts(run_id)}:
            self._client.log_table(run_id, {name: list(values) for name, values in columns.items()}, file)
            return
        rows = list(zip(*columns.values(), strict=True))  # MLflow would append them to those that it has
        self._client.log_dict(run_id, {"columns": list(columns), "data": rows}, file)

    @_outlives_outages
    def log_data_set(self, run_id: str | None, data_set: DataSetNote) -> None:
        """See Tracker."""
        if run_id is not None:
            self._client.log_inputs(run_id, [input_of(data_set)])

    @_outlives_outages
    def note_model(self, run_id: str | None, model: ModelNote) -> None:
        """See Tracker."""
        if run_id is not None:
            note_model(self._client, run_id, model)

    @_outlives_outages
    def log_model(self, run_id: str | None, folder: Path, trust_remote_code: bool = False) -> None:
        """See Tracker."""
        if run_id is not None:
            with self._time_to_upload(run_id):
                upload_model(self._client, run_id, folder, trust_remote_code)

    @_outlives_outages
    def log_scores(self, run_id: str | None, scores: Sequence[MeasuredScores], model_of: str | None) -> None:
        """See Tracker."""
        if run_id is None:
            return
        model = None if model_of is None else model_made_by(self._client, model_of)
        if model is not None:
            note_evaluated(self._client, run_id, model)
        for measured in scores:
            if measured.data_set is not None:
                self._client.log_inputs(run_id, [input_of(measured.data_set)])
            of_model = None if model is None else model.model_id
            self._metrics.send(run_id, metrics_of([{"step": 0, **measured.values}], of_model, measured.data_set))

    @contextmanager
    def _time_to_upload(self, run_id: str) -> Iterator[None]:
        """Give the calls of the block more time, unless the user has chosen another one or a call has failed before."""
        if self._warned or os.environ.get(_TIMEOUT) != _SECONDS_OF_A_CALL:
            yield
            return
        self._client.get_run(run_id)  # in the time of other calls: whether the server answers now
        os.environ[_TIMEOUT] = _SECONDS_OF_AN_UPLOAD
        try:
            yield
        finally:
            os.environ[_TIMEOUT] = _SECONDS_OF_A_CALL

    @contextmanager
    def watching_system(self, run_id: str | None) -> Iterator[None]:
        """See Tracker."""
        monitor = self._start_monitor(run_id)
        try:
            yield
        finally:
            if monitor is not None:
                monitor.finish()

    @_outlives_outages
    def _start_monitor(self, run_id: str | None) -> SystemMetricsMonitor | None:
        if run_id is None:
            return None
        monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self._uri)
        monitor.start()
        return monitor

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """See Tracker. What the run has already is not sent again, so that every value is one point."""
        known = self._latest(run_id)
        new = {name: value for name, value in metrics.items() if known.get(name) != value}
        if new:
            self.log_steps(run_id, [{"step": 0, **new}])

    def _latest(self, run_id: str | None) -> Mapping[str, float]:
        """The last values of a run's metrics; none in an outage, of which the sending tells."""
        with interruptions_kept(), suppress(Exception):
            return {} if run_id is None else dict(self._client.get_run(run_id).data.metrics)
        return {}

    @_outlives_outages
    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """See Tracker."""
        if run_id is not None:
            with self._time_to_upload(run_id):
                self._client.log_artifact(run_id, str(path))

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """See Tracker."""
        return max((self._count_steps(run_id, metric) or 0 for metric in metrics), default=0)

    @_outlives_outages
    def end_run(self, run_id: str | None, status: RunStatus = "FINISHED") -> None:
        """See Tracker."""
        if run_id is not None:
            parent = self._parents.pop(run_id, None)
            is_complete = run_id not in self._incomplete and self._is_all_sent(run_id) and self._is_all_sent(parent)
            lacks_something = status == "FINISHED" and not is_complete
            self._client.set_terminated(run_id, status="FAILED" if lacks_something else status)

    def _is_all_sent(self, run_id: str | None) -> bool:
        """Whether MLflow has all metrics of a run, after another attempt to send what is left."""
        if run_id is not None and self._metrics.are_unsent(run_id):
            self.log_steps(run_id, [])
        return run_id is None or not self._metrics.are_unsent(run_id)

    def has_finished(self, key: str) -> bool:
        """See Tracker."""
        return self._status(key) == "FINISHED"

    @_outlives_outages
    def _count_steps(self, run_id: str | None, metric: str) -> int:
        return 0 if run_id is None else self._metrics.num_steps(run_id, metric)

    @_outlives_outages
    def _status(self, key: str) -> str | None:
        run = self._find(self._run_ids.get(key, ""))
        return None if run is None else str(run.info.status)

    def _find(self, run_id: str) -> Run | None:
        """The run; None if the store has no run with this id."""
        runs = self._client.search_runs([self._experiment_id], f"attributes.run_id = '{run_id}'", max_results=1)
        return runs[0] if runs else None


def _read_run_ids(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    return RUN_IDS.read(file)
