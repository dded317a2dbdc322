"""Float32 master weights on disk, and what rounding them to the compute precision leaves of a stage.

A stage in bfloat16 updates float32 masters, and publishes their rounding. The next stage has to start from the masters:
a weight of 0.02 that lies on the bfloat16 grid moves only after its master has drifted by half a step of the grid,
6e-5, which a key stage at a learning rate of 5e-7 does not reach.

The masters of a model lie beside its folder: ``rank_R.safetensors`` holds whole float32 weights under the names of the
model's parameters, ``rank_R_N.safetensors`` those that do not fit one file, and ``manifest.json``, written last, the
size and the SHA-256 of every file. A base model's own folder is read in the same way where it is stored in a higher
precision than it is trained in.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.digests import FileNote
from sftkey_dist.errors import ModelError
from sftkey_dist.files import file_written_whole, write_text_atomically
from sftkey_dist.run_dir.stage_paths import MASTERS_MANIFEST

_MANTISSA_BITS = {"BF16": 7, "F16": 10, "F32": 23, "F64": 52}
_BITS_OF = {"bfloat16": 7, "float32": 23}
_ELEMENTS_AT_ONCE = 2**22
"""Elements that are compared at a time: whole, an embedding or a stack of experts would take ten times its memory."""
_REMEDY = "remove the folder: the stage that wrote it is then trained again"


def update_sums(start: Tensor, end: Tensor, stored_dtype: torch.dtype) -> Tensor:
    """Sums over a weight, whose update is u in the masters and v as stored: float64 [4].

    They are the number of elements, that of stored elements which changed, Σ u², and Σ u·v.

    Args:
        start: float32 master at the start of a stage, on any device.
        end: float32 master at its end, on the device that computes.
        stored_dtype: of published weights.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    parts = (weight.flatten().split(_ELEMENTS_AT_ONCE) for weight in (start, end))
    for before, after in zip(*parts, strict=True):
        sums += _sums_of_part(before.to(after.device), after, stored_dtype)
    return sums


def _sums_of_part(start: Tensor, end: Tensor, stored_dtype: torch.dtype) -> Tensor:
    start_stored, end_stored = start.to(stored_dtype), end.to(stored_dtype)
    update = (end - start).double()
    stored_update = (end_stored.float() - start_stored.float()).double()
    changed = (end_stored != start_stored).sum()
    return torch.stack(
        [
            torch.tensor(float(end.numel()), dtype=torch.float64),
            changed.double().cpu(),
            update.square().sum().cpu(),
            (update * stored_update).sum().cpu(),
        ]
    )


class StoredWeights:
    """Weights in safetensors files, read by name in float32, whole or a range at a time."""

    def __init__(self, files: Iterable[Path]) -> None:
        """
        Raises:
            ModelError: a file cannot be read.
        """
        self._opened = ExitStack()
        self._files: dict[str, Any] = {}
        for file in files:
            try:
                opened = self._opened.enter_context(safetensors.safe_open(file, framework="pt"))
            except (OSError, safetensors.SafetensorError) as error:
                raise ModelError(f"{file}: cannot be read ({error})") from error
            self._files |= dict.fromkeys(opened.keys(), opened)

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """The weights in all files of a folder.

        Raises:
            ModelError: a file cannot be read.
        """
        return cls(sorted(folder.glob("*.safetensors")))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def finer_than(self, precision: str) -> frozenset[str]:
        """Names of the weights that rounding to this precision would change."""
        bits = {name: _MANTISSA_BITS.get(file.get_slice(name).get_dtype(), 0) for name, file in self._files.items()}
        return frozenset(name for name, number in bits.items() if number > _BITS_OF[precision])

    def whole(self, name: str) -> Tensor:
        """A whole weight, in float32."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor.float()

    def range(self, name: str, offset: int, size: int) -> Tensor:
        """[size]: elements offset..offset+size of the flattened weight, zeros past its end; the file is not read whole.

        Only rows (of the first dimension) that the range touches are read.
        """
        stored = self._files[name].get_slice(name)
        shape = stored.get_shape()
        numel, row = math.prod(shape), math.prod(shape[1:])
        values = torch.zeros(size)
        end = min(offset + size, numel)
        if offset < end:
            first_row, last_row = offset // row, -(-end // row)
            rows = stored[first_row:last_row] if shape else stored[...]
            start = offset - first_row * row
            values[: end - offset] = rows.flatten()[start : start + end - offset]
        return values

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


class MastersManifest(BaseModel):
    """The files of the masters, or of a rank's part of them; rank 0 writes the whole one last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, FileNote]
    """Size and digest of every file by its name, as it was read back."""


def owners_of(sizes: Mapping[str, int], world_size: int) -> dict[str, int]:
    """The rank that writes each weight, balanced by size: the largest weights first, each to the least loaded rank."""
    loads = [(0, rank) for rank in range(world_size)]
    owners = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        load, rank = heapq.heappop(loads)
        owners[name] = rank
        heapq.heappush(loads, (load + sizes[name], rank))
    return owners


def turns_of(owners: Mapping[str, int], sizes: Mapping[str, int], max_size: int) -> list[set[str]]:
    """Weights that are gathered and written in turns: in each, every rank writes one file at the most.

    Args:
        owners: the rank that writes each weight.
        sizes: of the weights.
        max_size: of a file, unless a single weight is larger.
    """
    turns: list[set[str]] = [set()]
    filled: dict[int, tuple[int, int]] = {}
    for name, rank in owners.items():
        turn, load = filled.get(rank, (0, 0))
        if load and load + sizes[name] > max_size:
            turn, load = turn + 1, 0
        filled[rank] = turn, load + sizes[name]
        if turn == len(turns):
            turns.append(set())
        turns[turn].add(name)
    return turns


def write_masters(folder: Path, rank: int, turn: int, weights: Mapping[str, Tensor]) -> dict[str, FileNote]:
    """Write what a rank has in a turn, which may be nothing after the first; returns the file's note by its name."""
    if turn > 0 and not weights:
        return {}
    file = folder / f"rank_{rank:05d}{f'_{turn}' if turn else ''}.safetensors"
    with file_written_whole(file) as scratch:
        save_file(dict(weights), scratch)
    return {file.name: FileNote.of(file)}


def commit_masters(folder: Path, notes: Sequence[str]) -> None:
    """Write the manifest, which makes the files of all ranks valid, from their own manifests."""
    parts = [MastersManifest.model_validate_json(note) for note in notes]
    whole = MastersManifest(files={name: note for part in parts for name, note in part.files.items()})
    write_text_atomically(folder / MASTERS_MANIFEST, whole.model_dump_json(indent=2) + "\n")


def stored_masters(folder: Path) -> StoredWeights:
    """The masters in a folder, in the files that the manifest names.

    Another node may have written them seconds ago. A network file system that remembers what it listed before would
    leave some out, and this rank's part of their weights would silently start from its rounding.

    Raises:
        ModelError: the manifest or a file cannot be read.
    """
    return StoredWeights(folder / name for name in sorted(_read_manifest(folder).files))


def verify_masters(folder: Path, rank: int, world_size: int) -> None:
    """Check this rank's part of the files; all ranks together check each once.

    Raises:
        ModelError: a file differs from what was written.
    """
    manifest = _read_manifest(folder)
    try:
        damaged = [
            name
            for name in sorted(manifest.files)[rank::world_size]
            if not (folder / name).is_file() or FileNote.of(folder / name) != manifest.files[name]
        ]
    except OSError as error:
        raise _unreadable(folder, error) from error
    if damaged:
        raise ModelError(f"{folder / damaged[0]}: the file differs from what was written; {_REMEDY}")


def _read_manifest(folder: Path) -> MastersManifest:
    try:
        return MastersManifest.model_validate_json((folder / MASTERS_MANIFEST).read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder}: {in_a_line(error)}; {_REMEDY}")
