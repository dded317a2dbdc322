"""MLflow behind a small interface, called by the driver alone.

One parent run a strategy; below it a child a stage and one for each evaluation. Metrics come from the run directory's
journals, which stay the truth: a run that continues logs only the steps its MLflow run lacks.
"""

from sftkey_dist.tracking.tracker import RUN_DIR_TAG, DataSetNote, NullTracker, Tracker
from sftkey_dist.tracking.where import how_to_open, make_tracker, run_dirs_of, tracking_uri

__all__ = [
    "RUN_DIR_TAG",
    "DataSetNote",
    "NullTracker",
    "Tracker",
    "how_to_open",
    "make_tracker",
    "run_dirs_of",
    "tracking_uri",
]
