"""Tracking with MLflow and others behind a small interface, which only the driver calls.

Each strategy has a parent run with the model that it made, and a child run for each stage and each evaluation. Metrics
come from the journals of the run directory, which remain the source of truth. A resumed run logs only the steps that
its MLflow run lacks.
"""

from sftkey_dist.tracking.tracker import (
    RUN_DIR_TAG,
    RUN_TAG,
    SEED_TAG,
    STAGE_TAG,
    STRATEGY_TAG,
    DataSetNote,
    MeasuredScores,
    ModelNote,
    NullTracker,
    Tracker,
)
from sftkey_dist.tracking.where import (
    how_to_open,
    make_tracker,
    require_packages,
    run_dirs_of,
    tracking_uri,
    ways_to_open,
)

__all__ = [
    "RUN_DIR_TAG",
    "RUN_TAG",
    "SEED_TAG",
    "STAGE_TAG",
    "STRATEGY_TAG",
    "DataSetNote",
    "MeasuredScores",
    "ModelNote",
    "NullTracker",
    "Tracker",
    "how_to_open",
    "make_tracker",
    "require_packages",
    "run_dirs_of",
    "tracking_uri",
    "ways_to_open",
]
