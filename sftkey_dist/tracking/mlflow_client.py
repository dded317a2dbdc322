"""Connects to an MLflow store: whether it answers, which runs it tracks, and what to do about its errors."""

import socket
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import copy_if_absent, folder_kept_if_used
from sftkey_dist.tracking.sqlite_uri import sqlite_file, sqlite_uri
from sftkey_dist.tracking.tracker import RUN_DIR_TAG

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_MAX_SECONDS_TO_CONNECT = 10.0
_ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"


def find_run_dirs(uri: str, experiment: str) -> list[Path]:
    """The run directories that an experiment tracks, the newest last.

    Raises:
        ConfigError: The store cannot be used, or has no such experiment.
    """
    try:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise ConfigError(f"--experiment {experiment}: MLflow has no experiment of that name")
        runs, token = [], None
        while token is None or token:
            page = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"], page_token=token)
            runs += page
            token = page.token or ""
    except ConfigError:
        raise
    except Exception as error:  # whatever the store's driver or the network raises
        raise ConfigError(f"the MLflow store cannot be used ({in_a_line(error)}); {remedy_of(error, uri)}") from error
    return [Path(place) for place in dict.fromkeys(run.data.tags.get(RUN_DIR_TAG, "") for run in runs) if place]


def connect(uri: str) -> MlflowClient:
    """A client of a store. The file of a SQLite store is created if it does not exist."""
    _require_listener(uri)
    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=uri)
    if not file.exists():
        _create(file)
    with folder_kept_if_used(Path(uri.removeprefix("sqlite:///")).parent):  # MLflow creates one with the URI's escapes
        return MlflowClient(tracking_uri=uri)


def _create(file: Path) -> None:
    """Create the file of a SQLite store with its tables, whole or not at all.

    MLflow makes the tables and changes them in hundreds of statements, which SQLite does not undo together. What an
    interruption leaves of them can neither be used nor completed.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        made = Path(elsewhere) / "mlflow.db"
        MlflowClient(tracking_uri=sqlite_uri(made))
        copy_if_absent(made, file)  # another command may have created it meanwhile


def _require_listener(uri: str) -> None:
    """Check that a database server accepts connections, because MLflow would retry for minutes.

    Raises:
        OSError: No server listens at the address of the database.
    """
    dialect = uri.partition(":")[0].partition("+")[0]
    if dialect not in _PORTS:
        return
    place = make_url(uri)
    if place.host:  # a Unix socket needs no check, because it never lets a client wait
        socket.create_connection((place.host, place.port or _PORTS[dialect]), _MAX_SECONDS_TO_CONNECT).close()


def experiment_called(name: str, client: MlflowClient, artifact_location: str | None) -> str:
    """The id of an experiment, which is created if there is none of that name.

    Args:
        name: name of the experiment.
        client: client of the store.
        artifact_location: where a new experiment keeps its files; None if the server decides.

    Raises:
        ConfigError: The experiment was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location))
        except MlflowException as error:
            if error.error_code != _ALREADY_EXISTS:
                raise
        found = client.get_experiment_by_name(name)  # another command has just created it
    if found.lifecycle_stage != "active":
        raise ConfigError(f"tracking.experiment: {name!r} was deleted in MLflow; restore it or name another")
    return str(found.experiment_id)


def remedy_of(error: Exception, uri: str) -> str:
    """What a user can do about an error of the store."""
    if "out-of-date database schema" in str(error):
        return "upgrade it with `mlflow db upgrade`"
    if sqlite_file(uri) is not None:
        return _remedy_of_sqlite(str(error))
    if isinstance(error, MlflowException) and "Invalid Host header" in str(error):
        return "start the server with this host and port among its --allowed-hosts"
    if isinstance(error, MlflowException) and ("error code 401" in str(error) or "error code 403" in str(error)):
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account that the server lets in"
    return "start the server, or correct the URI"


def _remedy_of_sqlite(problem: str) -> str:
    if "locked" in problem:
        return "another program is writing to it: try again"
    if any(words in problem for words in ("readonly", "disk is full", "disk I/O error")):
        return "make room on its disk, or make it writable"
    if any(words in problem for words in ("not a database", "malformed", "already exists", "duplicate column")):
        return "the file is damaged or unfinished: move it away, and a new one is created in its place"
    return "correct the URI"
