"""The tracking store of a configuration, and how to open it. MLflow is imported only when it is used."""

import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

from sftkey_dist.config.secrets import holds_credentials, without_credentials
from sftkey_dist.config.tracking import TrackingConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.tracking.tracker import NullTracker, Tracker

_SQLITE = "sqlite:///"


def make_tracker(config: TrackingConfig, run_dir: Path, run_ids: Path) -> Tracker:
    """The tracker that a configuration asks for."""
    if not config.enabled:
        return NullTracker()
    from sftkey_dist.tracking.mlflow_store import MlflowTracker

    uri = tracking_uri(config, run_dir)
    return MlflowTracker(uri, config.experiment or run_dir.name, _artifacts(uri, run_dir), run_ids)


def tracking_uri(config: TrackingConfig, run_dir: Path) -> str:
    """``tracking.uri``, else MLFLOW_TRACKING_URI, else a SQLite file next to the run directory."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(run_dir.parent / "mlflow.db")


def _artifacts(uri: str, run_dir: Path) -> Path:
    """Next to a SQLite store, which runs in different folders may share; otherwise next to the run directory."""
    beside = _sqlite_path(uri) if uri.startswith(_SQLITE) else run_dir
    return beside.absolute().parent / "mlartifacts"


def _sqlite_uri(path: Path) -> str:
    """The URI of a SQLite file, escaped because SQLAlchemy decodes percent signs and reads options after a ``?``."""
    return _SQLITE + str(path).replace("%", "%25").replace("?", "%3F")


def _sqlite_path(uri: str) -> Path:
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0]))


def run_dirs_of(experiment: str, uri: str | None) -> list[Path]:
    """The run directories on this machine that an MLflow experiment tracks.

    Args:
        experiment: name of the experiment.
        uri: URI of the store. Default: MLFLOW_TRACKING_URI, else a SQLite file in `runs/`.

    Raises:
        ConfigError: the store cannot be used, the experiment does not exist, or none of its runs is on this machine.
    """
    store = uri or os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(Path("runs/mlflow.db").absolute())
    from sftkey_dist.tracking.mlflow_client import find_run_dirs

    found = find_run_dirs(store, experiment)
    here = [run_dir for run_dir in found if run_dir.is_dir()]
    if not here:
        raise ConfigError(f"--experiment {experiment}: none of its {len(found)} run directories is on this machine")
    return here


def how_to_open(uri: str) -> str:
    """A line that tells users how to open their runs. A URI with credentials is never printed."""
    if uri.startswith("sqlite:") and not holds_credentials(uri):
        return f"MLflow: mlflow ui --host 127.0.0.1 --backend-store-uri {shlex.quote(uri)}"
    if uri.startswith(("http://", "https://")):
        return f"MLflow: open {re.split('[?#]', without_credentials(uri).replace('***@', ''))[0]}"
    return "MLflow: start `mlflow ui --host 127.0.0.1` with the store that MLFLOW_TRACKING_URI names"
