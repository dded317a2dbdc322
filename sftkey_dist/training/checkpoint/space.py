"""Whether a stage will find the room that its checkpoints and its model take, before it starts."""

from pathlib import Path

from sftkey_dist.errors import ConfigError
from sftkey_dist.training.checkpoint.keeper import CHECKPOINTS_KEPT, committed
from sftkey_dist.training.checkpoint.storage import FolderStorage, Storage

CHECKPOINT_BYTES = 12
"""A parameter's: float32 master weight and two moments."""
_MODEL_BYTES = {"float32": 4, "bfloat16": 2}
_GIB = 2**30


def require_space(storage: Storage, stage_dir: Path, num_parameters: int, num_trained: int, precision: str) -> None:
    """
    Args:
        storage: of the checkpoints.
        stage_dir: where the model will be written.
        num_parameters: of the model.
        num_trained: parameters that checkpoints hold.
        precision: of the exported model.

    Raises:
        ConfigError: less is free than the stage will need; one checkpoint more than are kept is written at a time.
    """
    needed = num_parameters * _MODEL_BYTES[precision]
    if storage.free_bytes() is not None:
        needed += (CHECKPOINTS_KEPT + 1 - len(committed(storage))) * num_trained * CHECKPOINT_BYTES
    free = FolderStorage(stage_dir).free_bytes()
    if free is not None and free < needed:
        raise ConfigError(
            f"{stage_dir}: {free / _GIB:.1f} GiB are free, the stage's checkpoints and model take {needed / _GIB:.1f} "
            f"GiB; make room, choose another run_dir, or set training.checkpoint_storage"
        )
