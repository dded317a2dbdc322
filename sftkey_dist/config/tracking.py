"""The configuration of tracking with MLflow."""

from pydantic import Field

from sftkey_dist.config.paths import Location
from sftkey_dist.config.section import Section


class TrackingConfig(Section):
    """Tracking with MLflow."""

    enabled: bool = True
    """Whether to log to MLflow. The run directory contains every metric in either case."""
    uri: Location | None = None
    """Tracking server or store. Default: the environment variable MLFLOW_TRACKING_URI, or else an SQLite file
    `mlflow.db` beside the run directory. Put credentials into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    put the whole URI with its credentials into MLFLOW_TRACKING_URI."""
    experiment: str | None = None
    """Name of the experiment; default: the name of the run directory."""
    system_metrics: bool = True
    """Also log the load and memory of the machine on which the command runs."""
    max_model_gib: float = Field(1.0, ge=0, le=1_000_000)
    """Models up to this size are logged as MLflow models. Of larger ones only the location is logged; 0 logs no
    model."""
