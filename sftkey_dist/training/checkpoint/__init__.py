"""Checkpoints, each of which is complete or is ignored.

Every rank writes its shard while training goes on, in a folder that this attempt alone writes to; when all shards lie
on storage, rank 0 writes the manifest, and only then is there a checkpoint. A reader verifies every file against the
manifest, and goes back to the checkpoint before where a file differs. Neither Ray nor DeepSpeed is asked which
checkpoint is the newest.
"""

from sftkey_dist.training.checkpoint.keeper import (
    CHECKPOINTS_KEPT,
    CheckpointKeeper,
    new_attempt,
    newest_step,
    remove_checkpoints,
)
from sftkey_dist.training.checkpoint.shards import ShardedState, Snapshot, load_shards
from sftkey_dist.training.checkpoint.space import CHECKPOINT_BYTES, Needs, require_space
from sftkey_dist.training.checkpoint.storage import Storage, open_storage

__all__ = [
    "CHECKPOINTS_KEPT",
    "CHECKPOINT_BYTES",
    "CheckpointKeeper",
    "Needs",
    "ShardedState",
    "Snapshot",
    "Storage",
    "load_shards",
    "new_attempt",
    "newest_step",
    "open_storage",
    "remove_checkpoints",
    "require_space",
]
