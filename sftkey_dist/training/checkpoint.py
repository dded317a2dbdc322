"""Checkpoints any number of ranks can read: flat float32 slices in safetensors and a manifest.

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
    """Written last, by rank 0; a folder without it is no checkpoint."""

    steps_done: int
    world_size: int
    members_digest: int
    numel: dict[str, int]
    sha256: dict[str, str]


def write_checkpoint(engine: ZeroEngine, folder: Path, steps_done: int, members_digest: int) -> None:
    """Write this rank's share into ``folder``; shares of all ranks, merged in one folder, make the checkpoint.

    Args:
        engine: the engine, after ``steps_done`` updates.
        folder: an empty folder of this rank's own, or one shared by all ranks.
        steps_done: optimizer steps that are in the weights.
        members_digest: digest of the last step's examples; a resumed stage must plan the same.
    """
    tensors: dict[str, Tensor] = {}
    numel: dict[str, int] = {}
    for name, full_size, slices in engine.local_state():
        numel[name] = full_size
        # Slices are views of one flat buffer, which safetensors refuses to store.
        tensors |= {f"{name}|{key}": value.detach().cpu().clone() for key, value in slices.items()}
    shard = folder / _shard_name(engine.rank)
    save_file(tensors, shard)
    digests = _gather_digests(engine, shard)
    if engine.rank == 0:
        manifest = CheckpointManifest(steps_done, engine.world_size, members_digest, numel, digests)
        write_json_atomically(folder / _MANIFEST, asdict(manifest))


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
        if not shard.is_file() or digest_file(shard) != manifest.sha256[shard.name]:
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


def _gather_digests(engine: ZeroEngine, shard: Path) -> dict[str, str]:
    digests = engine.gather_to_all(digest_file(shard))
    return {_shard_name(rank): digest for rank, digest in enumerate(digests)}
