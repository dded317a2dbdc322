"""Which engine trains a stage: the one place that names it."""

from sftkey_dist.training.engine.base import Engine
from sftkey_dist.training.engine.library import join_process_group
from sftkey_dist.training.engine.zero import ZeroEngine
from sftkey_dist.training.job import StageJob

__all__ = ["join_process_group", "make_engine"]


def make_engine(job: StageJob) -> Engine:
    """Load the model that a stage starts from, sharded over all ranks; all ranks call it together.

    Raises:
        ModelError: the model cannot be loaded.
    """
    return ZeroEngine(job)
