"""The trackers of a configuration, and how to open what they write. Each is imported only when it is used."""

import importlib.util
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sftkey_dist.config.secrets import holds_credentials, without_credentials
from sftkey_dist.config.tracking import TrackingConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.run_dir import RunDir
from sftkey_dist.tracking.several import SeveralTrackers
from sftkey_dist.tracking.sink import SinkTracker
from sftkey_dist.tracking.sqlite_uri import sqlite_file, sqlite_uri
from sftkey_dist.tracking.tracker import NullTracker, Tracker


def make_tracker(config: TrackingConfig, run_dir: Path, run_ids: Path) -> Tracker:
    """The tracker that a configuration asks for. Of several, MLflow is the first.

    Raises:
        ConfigError: the MLflow store cannot be used, or a tracker lacks its package or its key.
    """
    require_packages(config)
    trackers = [_mlflow(config, run_dir, run_ids)] if config.enabled else []
    trackers += [_SINKS[name](config, run_dir) for name in config.also]
    if not trackers:
        return NullTracker()
    return trackers[0] if len(trackers) == 1 else SeveralTrackers(trackers)


def require_packages(config: TrackingConfig) -> None:
    """
    Raises:
        ConfigError: W&B is asked for, but is not installed, or has no key for its server.
    """
    if "wandb" not in config.also:
        return
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # without an origin it is a folder that W&B wrote runs to
        raise ConfigError(
            "tracking.also: the package wandb is not installed; install it with pip install 'sftkey_dist[wandb]', or "
            "leave wandb out"
        )
    if config.wandb.mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise ConfigError(
            "tracking.also: W&B needs a key; set the environment variable WANDB_API_KEY, or set "
            "tracking.wandb.mode=offline"
        )


def _mlflow(config: TrackingConfig, run_dir: Path, run_ids: Path) -> Tracker:
    from sftkey_dist.tracking.mlflow_store import MlflowTracker

    uri = tracking_uri(config, run_dir)
    return MlflowTracker(uri, config.experiment or run_dir.name, _artifacts(uri, run_dir), run_ids)


def _tensorboard(config: TrackingConfig, run_dir: Path) -> Tracker:
    from sftkey_dist.tracking.tensorboard_sink import TensorBoardSink

    return SinkTracker(TensorBoardSink(_event_folder(config, run_dir) / run_dir.name))


def _wandb(config: TrackingConfig, run_dir: Path) -> Tracker:
    from sftkey_dist.tracking.wandb_sink import WandbSink

    project, runs = config.experiment or run_dir.name, RunDir(run_dir).wandb_runs
    return SinkTracker(WandbSink(config.wandb, project, run_dir, runs))


def _ray(config: TrackingConfig, run_dir: Path) -> Tracker:
    from sftkey_dist.tracking.ray_sink import LiveTracker, RaySink

    return LiveTracker(RaySink())


_SINKS: Mapping[str, Callable[[TrackingConfig, Path], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "ray": _ray,
}


def _event_folder(config: TrackingConfig, run_dir: Path) -> Path:
    """``tracking.tensorboard.folder``, else a folder next to the run directory, like the SQLite file of MLflow."""
    return config.tensorboard.folder or run_dir.parent / "tensorboard"


def tracking_uri(config: TrackingConfig, run_dir: Path) -> str:
    """``tracking.uri``, else MLFLOW_TRACKING_URI, else a SQLite file next to the run directory."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(run_dir.parent / "mlflow.db")


def _artifacts(uri: str, run_dir: Path) -> Path:
    """Next to a SQLite store, which runs in different folders may share; otherwise next to the run directory."""
    beside = sqlite_file(uri) or run_dir
    return beside.absolute().parent / "mlartifacts"


def run_dirs_of(experiment: str, uri: str | None) -> list[Path]:
    """The run directories on this machine that an MLflow experiment tracks.

    Args:
        experiment: name of the experiment.
        uri: URI of the store. Default: MLFLOW_TRACKING_URI, else a SQLite file in `runs/`.

    Raises:
        ConfigError: the store cannot be used, the experiment does not exist, or none of its runs is on this machine.
    """
    default = Path("runs/mlflow.db").absolute()
    store = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if store is None and not default.is_file():  # which opening it would create
        raise ConfigError(f"--experiment {experiment}: there is no store {default}; give --tracking-uri")
    store = store or sqlite_uri(default)
    from sftkey_dist.tracking.mlflow_client import find_run_dirs

    found = find_run_dirs(store, experiment)
    here = [run_dir for run_dir in found if run_dir.is_dir()]
    if not here:
        raise ConfigError(f"--experiment {experiment}: none of its {len(found)} run directories is on this machine")
    return here


def ways_to_open(config: TrackingConfig, run_dir: Path) -> Iterator[str]:
    """For each tracker of a configuration, a line that tells users how to open their runs."""
    if config.enabled:
        yield how_to_open(tracking_uri(config, run_dir))
    if "tensorboard" in config.also:
        yield f"TensorBoard: tensorboard --logdir {shlex.quote(str(_event_folder(config, run_dir)))}"
    if "wandb" in config.also and config.wandb.mode == "offline":
        yield f"W&B: wandb sync {shlex.quote(str(run_dir / 'wandb'))}/offline-run-*"


def how_to_open(uri: str) -> str:
    """A line that tells users how to open their runs. A URI with credentials is never printed."""
    if uri.startswith("sqlite:") and not holds_credentials(uri):
        return f"MLflow: mlflow ui --host 127.0.0.1 --backend-store-uri {shlex.quote(uri)}"
    if uri.startswith(("http://", "https://")):
        return f"MLflow: open {re.split('[?#]', without_credentials(uri).replace('***@', ''))[0]}"
    return "MLflow: start `mlflow ui --host 127.0.0.1` with the store that MLFLOW_TRACKING_URI names"
