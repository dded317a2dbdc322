"""Which store a configuration means, and how a person opens it."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from sftkey_dist.config.schema import TrackingConfig
from sftkey_dist.tracking.mlflow_store import MlflowTracker
from sftkey_dist.tracking.tracker import NullTracker, Tracker


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
