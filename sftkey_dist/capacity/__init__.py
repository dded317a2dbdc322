"""Estimates what a run needs on a cluster before the cluster is rented: memory, time, communication and cost."""

from sftkey_dist.capacity.estimate import (
    Estimate,
    StageCapacity,
    StageLoad,
    estimate,
    smallest_cluster,
    what_would_help,
)
from sftkey_dist.capacity.hardware import ACCELERATORS, Accelerator, Cluster, find_accelerator
from sftkey_dist.capacity.host import exported_bytes
from sftkey_dist.capacity.load import stage_load
from sftkey_dist.capacity.memory import GuardCopy
from sftkey_dist.capacity.model import ModelSize, size_of
from sftkey_dist.capacity.table import capacity_table, total_in_words

__all__ = [
    "ACCELERATORS",
    "Accelerator",
    "Cluster",
    "Estimate",
    "GuardCopy",
    "ModelSize",
    "StageCapacity",
    "StageLoad",
    "capacity_table",
    "estimate",
    "exported_bytes",
    "find_accelerator",
    "size_of",
    "smallest_cluster",
    "stage_load",
    "total_in_words",
    "what_would_help",
]
