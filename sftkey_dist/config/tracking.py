"""The configuration of tracking with MLflow, and with what gets the same numbers beside it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.secrets import require_no_credentials
from sftkey_dist.config.section import Section, SectionWithNewerKeys


def _without_repetition(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"each tracker must occur once; got {list(names)}")
    return names


def _no_folder(uri: str | None) -> str | None:
    """MLflow 3 has no stores in plain folders; opening one fails long after the data are read."""
    if uri is not None and uri != "databricks" and "://" not in uri:
        raise ValueError(
            f"{uri!r} is neither an address nor a database; write http://HOST:PORT, or sqlite:///{uri}/mlflow.db"
        )
    return uri


def _no_key(name: str) -> str:
    require_no_credentials(name, "put the key into WANDB_API_KEY")
    return name


WandbName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+$", max_length=128), AfterValidator(_no_key)]


class TensorBoardConfig(Section):
    """Event files for TensorBoard."""

    folder: LocalPath | None = None
    """Folder of the event files, in which every run has a folder of its name. Default: `tensorboard` beside the run
    directory."""


class WandbConfig(Section):
    """Runs in Weights & Biases. The key comes from the environment variable WANDB_API_KEY."""

    project: WandbName | None = None
    """Name of the project; default: the name of the experiment."""
    entity: WandbName | None = None
    """User or team that owns the project; default: the one that WANDB_API_KEY belongs to."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes to the folder `wandb` of the run directory, from which `wandb sync` uploads, and needs neither a
    network nor a key."""


class TrackingConfig(SectionWithNewerKeys):
    """Tracking with MLflow, and with other trackers beside it."""

    newer_keys = frozenset({"also", "tensorboard", "wandb"})

    enabled: bool = True
    """Whether to log to MLflow. The run directory contains every metric in either case."""
    uri: Annotated[Location | None, AfterValidator(_no_folder)] = None
    """Tracking server or store. Default: the environment variable MLFLOW_TRACKING_URI, or else an SQLite file
    `mlflow.db` beside the run directory. Put credentials into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    put the whole URI with its credentials into MLFLOW_TRACKING_URI."""
    experiment: str | None = None
    """Name of the experiment; default: the name of the run directory."""
    system_metrics: bool = True
    """Also log the load and memory of the machine on which the command runs."""
    max_model_gib: float = Field(1.0, ge=0, le=1_000_000)
    """The files of models up to this size are uploaded to MLflow. Of larger ones it has the location and the scores; 0
    uploads none."""
    also: Annotated[tuple[Literal["tensorboard", "wandb", "ray"], ...], AfterValidator(_without_repetition)] = ()
    """Trackers that get the same numbers as MLflow, or get them in its place if `enabled` is false. `wandb` needs the
    extra `wandb`. `ray` exports the newest numbers to the Prometheus endpoint of the Ray node on which the command
    runs."""
    tensorboard: TensorBoardConfig = TensorBoardConfig()
    """Event files, if `also` contains `tensorboard`."""
    wandb: WandbConfig = WandbConfig()
    """Runs in Weights & Biases, if `also` contains `wandb`."""

    @property
    def tracks(self) -> bool:
        """Whether anything keeps track of the run."""
        return self.enabled or bool(self.also)
