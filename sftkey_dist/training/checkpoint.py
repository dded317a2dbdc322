"""Checkpoints any number of ranks can read: flat float32 slices in safetensors, a digest of each, and a manifest.

``rank_R.safetensors`` holds rank R's slice of every parameter's master weights and moments. Joined in rank order
they are the flat parameter plus padding, so a reader with another number of ranks takes the ranges it needs. No
pickle is read or written. 12 bytes a parameter.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from sftkey_dist.errors import TrainingError
from sftkey_dist.files import digest_file, write_json_atomically
from sftkey_dist.training.engine import ZeroEngine

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CheckpointManifest:
    """What rank 0 writes beside the shards."""

    steps_done: int
    world_size: int
    members_digest: int
    numel: dict[str, int]


class Snapshot:
    """This rank's share of a checkpoint, copied out of the engine, so that training goes on while it is written."""

    def __init__(self, engine: ZeroEngine, steps_done: int, members_digest: int) -> None:
        """
        Args:
            engine: the engine, after ``steps_done`` updates.
            steps_done: optimizer steps that are in the weights.
            members_digest: digest of the last step's examples; a resumed stage must plan the same.
        """
        self._rank = engine.rank
        self._tensors: dict[str, Tensor] = {}
        numel: dict[str, int] = {}
        for name, full_size, slices in engine.local_state():
            numel[name] = full_size
            self._tensors |= {f"{name}|{key}": _copied_to_cpu(value) for key, value in slices.items()}
        self._manifest = CheckpointManifest(steps_done, engine.world_size, members_digest, numel)

    def write(self, folder: Path) -> None:
        """Write it into a folder of this rank's own, or one shared by all ranks; merged, they make the checkpoint.

        The digest of a shard is written after it, so that a shard without one is not whole.
        """
        shard = folder / _shard_name(self._rank)
        save_file(self._tensors, shard)
        write_json_atomically(_digest_file(shard), {"sha256": digest_file(shard)})
        if self._rank == 0:
            write_json_atomically(folder / _MANIFEST, asdict(self._manifest))


def read_manifest(folder: Path) -> CheckpointManifest:
    """
    Raises:
        TrainingError: the folder is not a complete checkpoint.
    """
    try:
        return CheckpointManifest(**json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{folder}: not a complete checkpoint ({error}); {_start_over(folder)}") from error


def load_checkpoint(engine: ZeroEngine, folder: Path) -> CheckpointManifest:
    """Restore weights and moments, written by any number of ranks.

    Raises:
        TrainingError: the checkpoint is incomplete or a file is not what was written.
    """
    manifest = read_manifest(folder)
    for rank in range(manifest.world_size):
        shard = folder / _shard_name(rank)
        if not _is_whole(shard):
            raise TrainingError(f"{shard}: missing or damaged; {_start_over(folder)}")
    engine.load_local_state(_ShardReader(folder, manifest), manifest.steps_done)
    return manifest


class _ShardReader:
    """Reads ranges of flat parameters out of the shards that hold them."""

    def __init__(self, folder: Path, manifest: CheckpointManifest) -> None:
        self._numel = manifest.numel
        self._shards = [
            safetensors.safe_open(folder / _shard_name(rank), framework="pt") for rank in range(manifest.world_size)
        ]

    def __call__(self, name: str, key: str, offset: int, size: int) -> Tensor:
        values = torch.zeros(size)
        end = min(offset + size, self._numel[name])
        for rank, shard in enumerate(self._shards):
            stored: Any = shard.get_slice(f"{name}|{key}")
            shard_size = stored.get_shape()[0]
            first, last = max(offset, rank * shard_size), min(end, (rank + 1) * shard_size)
            if first < last:
                values[first - offset : last - offset] = stored[first - rank * shard_size : last - rank * shard_size]
        return values


def _start_over(folder: Path) -> str:
    """Ray keeps a list of checkpoints beside them, so a single one cannot be taken away."""
    return f"remove {folder.parent} to train the stage from its start"


def _shard_name(rank: int) -> str:
    return f"rank_{rank:05d}.safetensors"


def _digest_file(shard: Path) -> Path:
    return shard.with_suffix(".sha256.json")


def _is_whole(shard: Path) -> bool:
    try:
        written = json.loads(_digest_file(shard).read_text(encoding="utf-8"))["sha256"]
        return bool(digest_file(shard) == written)
    except (OSError, ValueError, KeyError):
        return False


def _copied_to_cpu(values: Tensor) -> Tensor:
    """A copy always: slices are views of one flat buffer, which the next step changes and safetensors refuses."""
    return values.detach().to("cpu", copy=True)
