"""MLflow."""

from pydantic import Field

from sftkey_dist.config.paths import Location
from sftkey_dist.config.section import Section


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = True
    """Whether to log to MLflow; the run directory holds every metric either way."""
    uri: Location | None = None
    """Tracking server or store; default: the environment's MLFLOW_TRACKING_URI, else SQLite in `mlflow.db`
    beside the run directory. Credentials belong into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or with
    the whole URI into MLFLOW_TRACKING_URI."""
    experiment: str | None = None
    """Experiment name; default: the name of the run directory."""
    system_metrics: bool = True
    """Also log load and memory of the machine that drives the run."""
    max_model_gib: float = Field(1.0, ge=0, le=1_000_000)
    """Models of strategies up to this size are logged as MLflow models, larger ones only named; 0 logs none."""
