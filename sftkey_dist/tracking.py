"""MLflow behind a small interface; the only place that knows it. Called by the driver alone.

One parent run a strategy; below it a child a stage and one for the evaluation. Metrics come from the run
directory's journals, which stay the truth: a run that continues logs only the steps its MLflow run lacks.
"""

import functools
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sftkey_dist.config.schema import TrackingConfig
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically

P = ParamSpec("P")
T = TypeVar("T")

_MAX_PARAM_CHARACTERS = 500
_MAX_BATCH = 900  # MLflow takes 1,000 metrics and 100 params a call


class Tracker(Protocol):
    """What the pipeline tells whoever keeps track."""

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str | None:
        """Start the run known as ``key``, or continue it; returns its id."""
        ...

    def log_params(self, run_id: str | None, params: Mapping[str, Any]) -> None:
        """Nested values are flattened with dots."""
        ...

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, Any]]) -> None:
        """Metrics with their ``step``; nested values are flattened with slashes."""
        ...

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """Metrics without a step."""
        ...

    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """A file."""
        ...

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """The step after the last at which the run has any of the metrics."""
        ...

    def end_run(self, run_id: str | None, *, failed: bool = False) -> None:
        """Mark the run finished or failed."""
        ...

    def has_finished(self, key: str) -> bool:
        """Whether the run known as ``key`` was logged to its end."""
        ...


class NullTracker:
    """Keeps no track: the run directory alone holds the metrics."""

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> None:
        """See Tracker."""

    def log_params(self, run_id: str | None, params: Mapping[str, Any]) -> None:
        """See Tracker."""

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, Any]]) -> None:
        """See Tracker."""

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """See Tracker."""

    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """See Tracker."""

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """See Tracker."""
        return 0

    def end_run(self, run_id: str | None, *, failed: bool = False) -> None:
        """See Tracker."""

    def has_finished(self, key: str) -> bool:
        """See Tracker."""
        return True


def _outlives_outages(
    method: Callable[Concatenate["MlflowTracker", P], T],
) -> Callable[Concatenate["MlflowTracker", P], T | None]:
    """A store that stops answering costs a warning, not the run: the journals hold the metrics."""

    @functools.wraps(method)
    def guarded(self: "MlflowTracker", *arguments: P.args, **keywords: P.kwargs) -> T | None:
        try:
            return method(self, *arguments, **keywords)
        except Exception as error:  # whatever the store's driver or the network raises
            self.warn_once(error)
            return None

    return guarded  # type: ignore[return-value]  # wraps() hides that self stays positional


class MlflowTracker:
    """Logs to an MLflow server or store; remembers run ids in a file, so that a rerun continues its runs."""

    def __init__(self, uri: str, experiment: str, artifacts: Path, run_ids: Path) -> None:
        """
        Raises:
            ConfigError: the tracking server does not answer, or the experiment was deleted.
        """
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        # By default a dead server blocks every call for minutes (7 retries with 120 s timeouts).
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._warned = False
        self._run_ids_file = run_ids
        self._run_ids: dict[str, str] = json.loads(run_ids.read_text()) if run_ids.exists() else {}
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment_id = self._find_experiment(
                experiment, artifacts.as_uri() if uri.startswith("sqlite") else None
            )
        except ConfigError:
            raise
        except Exception as error:  # whatever the store's driver or the network raises
            raise ConfigError(
                f"tracking.uri: the MLflow store cannot be used ({' '.join(str(error).split())[:200]}); start the "
                f"server, correct the URI, or set tracking.enabled=false"
            ) from error

    def warn_once(self, error: Exception) -> None:
        """Say that the store has stopped answering, the first time only."""
        if not self._warned:
            self._warned = True
            what = " ".join(str(error).split())[:200]
            console.print(
                f"warning: MLflow stopped answering ({what}); the run goes on, its metrics are in metrics.jsonl",
                markup=False,
            )

    @_outlives_outages
    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        """See Tracker."""
        known = self._run_ids.get(key)
        if known is not None and self._find(known) is not None:
            self._client.update_run(known, status="RUNNING")
            return known
        all_tags = dict(tags) | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
        run_id = str(self._client.create_run(self._experiment_id, run_name=name, tags=all_tags).info.run_id)
        self._run_ids[key] = run_id
        write_json_atomically(self._run_ids_file, self._run_ids)
        return run_id

    @_outlives_outages
    def log_params(self, run_id: str | None, params: Mapping[str, Any]) -> None:
        """See Tracker. Params of a run never change; those it has are left alone."""
        if run_id is None:
            return
        known = self._client.get_run(run_id).data.params
        new = [
            Param(key, str(value)[:_MAX_PARAM_CHARACTERS])
            for key, value in _flattened(params, ".").items()
            if key not in known
        ]
        for start in range(0, len(new), 100):
            self._client.log_batch(run_id, params=new[start : start + 100])

    @_outlives_outages
    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, Any]]) -> None:
        """See Tracker."""
        if run_id is None:
            return
        now_ms = int(time.time() * 1000)  # of two values at a step, MLflow shows the later
        metrics = [
            Metric(key, float(value), now_ms, int(record["step"]))
            for record in records
            for key, value in _flattened(record, "/").items()
            if key != "step"
        ]
        for start in range(0, len(metrics), _MAX_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _MAX_BATCH])

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """See Tracker."""
        self.log_steps(run_id, [{"step": 0, **metrics}])

    @_outlives_outages
    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """See Tracker."""
        if run_id is not None:
            self._client.log_artifact(run_id, str(path))

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """See Tracker."""
        return max((self._count_steps(run_id, metric) or 0 for metric in metrics), default=0)

    @_outlives_outages
    def end_run(self, run_id: str | None, *, failed: bool = False) -> None:
        """See Tracker."""
        if run_id is not None:
            self._client.set_terminated(run_id, status="FAILED" if failed else "FINISHED")

    def has_finished(self, key: str) -> bool:
        """See Tracker."""
        return self._status(key) == "FINISHED"

    @_outlives_outages
    def _count_steps(self, run_id: str | None, metric: str) -> int:
        history = self._client.get_metric_history(run_id, metric) if run_id is not None else []
        return 1 + max((point.step for point in history), default=-1)

    @_outlives_outages
    def _status(self, key: str) -> str | None:
        run = self._find(self._run_ids.get(key, ""))
        return None if run is None else str(run.info.status)

    def _find(self, run_id: str) -> Any:
        """The run, or None where the store has none of that id."""
        runs = self._client.search_runs([self._experiment_id], f"attributes.run_id = '{run_id}'", max_results=1)
        return runs[0] if runs else None

    def _find_experiment(self, name: str, artifact_location: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name, artifact_location=artifact_location))
        if found.lifecycle_stage != "active":
            raise ConfigError(f"tracking.experiment: {name!r} was deleted in MLflow; restore it or name another")
        return str(found.experiment_id)


def make_tracker(config: TrackingConfig, run_dir: Path, run_ids: Path) -> Tracker:
    """The tracker a configuration asks for."""
    if not config.enabled:
        return NullTracker()
    return MlflowTracker(
        tracking_uri(config, run_dir),
        config.experiment or run_dir.name,
        run_dir.parent / "mlartifacts",
        run_ids,
    )


def tracking_uri(config: TrackingConfig, run_dir: Path) -> str:
    """``tracking.uri``, else the environment's, else SQLite beside the run directory."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir.parent / 'mlflow.db'}"


def how_to_open(uri: str) -> str:
    """The line that shows a person their runs; a URI that may hold credentials is not printed."""
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        return f"MLflow: mlflow ui --host 127.0.0.1 --backend-store-uri {uri}"
    if parts.scheme in ("http", "https"):
        return f"MLflow: open {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "MLflow: start `mlflow ui --host 127.0.0.1` with the store that MLFLOW_TRACKING_URI names"


def _flattened(values: Mapping[str, Any], separator: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{inner}": item for inner, item in _flattened(value, separator).items()}
        else:
            flat[key] = value
    return flat
