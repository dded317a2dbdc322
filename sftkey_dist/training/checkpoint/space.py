"""Whether a stage will find the room that its checkpoints and its model take, before it starts."""

from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.errors import ConfigError, StorageError
from sftkey_dist.training.checkpoint.keeper import CHECKPOINTS_KEPT, committed
from sftkey_dist.training.checkpoint.storage import FolderStorage, Storage

CHECKPOINT_BYTES = 12
"""A parameter's: float32 master weight and two moments."""
_MODEL_BYTES = {"float32": 4, "bfloat16": 2}
_MASTER_BYTES = 4
_GIB = 2**30
_PROBE = "probe"


@dataclass(frozen=True)
class Needs:
    """What a stage will write.

    Attributes:
        num_parameters: of the model.
        num_trained: parameters that checkpoints hold.
        export_precision: of the model.
        num_checkpoints: that are due in the whole stage.
        num_models: copies of the model that lie there at a time: the result, and the guard's candidates.
        hands_on_masters: whether float32 masters lie beside each.
        anchor_bytes: predictions of the model that an anchored stage starts from.
    """

    num_parameters: int
    num_trained: int
    export_precision: str
    num_checkpoints: int
    num_models: int
    hands_on_masters: bool = False
    anchor_bytes: int = 0


def require_space(storage: Storage, stage_dir: Path, needs: Needs) -> None:
    """
    Args:
        storage: of the checkpoints.
        stage_dir: where the model will be written.
        needs: of the stage.

    Raises:
        ConfigError: less is free than the stage will need; one checkpoint more than are kept is written at a time. Or
            an object store cannot be written to.
    """
    of_parameter = _MODEL_BYTES[needs.export_precision] + (_MASTER_BYTES if needs.hands_on_masters else 0)
    needed = needs.num_models * needs.num_parameters * of_parameter + needs.anchor_bytes
    if storage.free_bytes() is None:
        _require_writable(storage)
    else:
        at_a_time = min(CHECKPOINTS_KEPT + 1, needs.num_checkpoints)
        needed += max(0, at_a_time - len(committed(storage))) * needs.num_trained * CHECKPOINT_BYTES
    free = FolderStorage(stage_dir).free_bytes()
    if free is not None and free < needed:
        raise ConfigError(
            f"{stage_dir}: {free / _GIB:.1f} GiB are free, the stage's checkpoints and model take {needed / _GIB:.1f} "
            f"GiB; make room, choose another run_dir, or set training.checkpoint_storage"
        )


def _require_writable(storage: Storage) -> None:
    try:
        with storage.writing(_PROBE, _PROBE) as file:
            file.write_text("can be removed", encoding="utf-8")
        storage.remove(_PROBE, _PROBE)
    except StorageError as error:
        raise ConfigError(f"training.checkpoint_storage cannot be written to: {error}") from error
