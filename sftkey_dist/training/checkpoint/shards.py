"""What a checkpoint holds: flat float32 slices in safetensors.

``rank_R.safetensors`` holds rank R's slice of every parameter's master weights and moments. Joined in rank order
they are the flat parameter plus padding, so a reader with another number of ranks takes the ranges it needs. No
pickle is read or written. 12 bytes a parameter; 8 of one that Muon updates, which has one moment.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from sftkey_dist.training.checkpoint.manifest import Manifest
from sftkey_dist.training.checkpoint.storage import Storage

_PINNED_BYTES = 64 * 2**20


class SliceReader(Protocol):
    """Reads a range of a parameter's state."""

    def __call__(self, name: str, key: str, offset: int, size: int) -> Tensor:
        """float32 [size]: elements offset..offset+size of a flat parameter's state, padded with zeros."""
        ...


class ShardedState(Protocol):
    """Master weights and moments of a sharded model; every method is called on all ranks together.

    Slices of all ranks, joined in rank order, are the flat parameter followed by padding.
    """

    def local_state(self) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        """This rank's slices: parameter name, its full number of elements, float32 slices by key."""
        ...

    def load_local_state(self, slices_of: SliceReader, optimizer_steps: int) -> None:
        """Set this rank's slices to what the reader returns for them.

        Args:
            slices_of: called with (parameter name, key, offset, number of elements); elements past the end of the
                parameter are padding.
            optimizer_steps: updates that the moments have seen.

        Raises:
            TrainingError: the state lies where it cannot be set.
        """
        ...


class Snapshot:
    """This rank's share of a checkpoint, copied out of the engine, so that training goes on while it is written.

    Attributes:
        steps_done: optimizer steps that are in the weights.
        members_digest: digest of the last step's examples.
        candidate: the guard's model that a stage going on from here will look for, by the steps done when it was taken.
        numel: elements of every trained parameter.
    """

    def __init__(self, state: ShardedState, steps_done: int, members_digest: int, candidate: int | None = None) -> None:
        """
        Args:
            state: of the engine, after ``steps_done`` updates.
            steps_done: optimizer steps that are in the weights.
            members_digest: digest of the last step's examples.
            candidate: see the class.
        """
        self.steps_done, self.members_digest, self.candidate = steps_done, members_digest, candidate
        self.numel: dict[str, int] = {}
        self._tensors: dict[str, Tensor] = {}
        copy = HostCopy()
        for name, full_size, slices in state.local_state():
            self.numel[name] = full_size
            self._tensors |= {f"{name}|{key}": copy(value) for key, value in slices.items()}

    @property
    def num_bytes(self) -> int:
        """Size of the shard without its header."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def write(self, file: Path) -> None:
        """Write the shard."""
        save_file(self._tensors, file)


def load_shards(state: ShardedState, storage: Storage, folder: str, manifest: Manifest) -> None:
    """Restore weights and moments, written by any number of ranks; the shards have been verified."""
    with ExitStack() as opened:
        state.load_local_state(_ShardReader(storage, folder, manifest, opened), manifest.steps_done)


def shard_name(rank: int) -> str:
    """File of a rank's shard."""
    return f"rank_{rank:05d}.safetensors"


class _ShardReader:
    """Reads ranges of flat parameters out of the shards that hold them; only those are opened."""

    def __init__(self, storage: Storage, folder: str, manifest: Manifest, opened: ExitStack) -> None:
        self._storage, self._folder, self._opened = storage, folder, opened
        self._numel, self._world_size = manifest.numel, manifest.world_size
        self._shards: dict[int, Any] = {}

    def __call__(self, name: str, key: str, offset: int, size: int) -> Tensor:
        values = torch.zeros(size)
        end = min(offset + size, self._numel[name])
        shard_size = -(-self._numel[name] // self._world_size)
        for rank in range(offset // shard_size, min(self._world_size, -(-end // shard_size))):
            first, last = max(offset, rank * shard_size), min(end, (rank + 1) * shard_size)
            if first < last:
                stored = self._shard(rank).get_slice(f"{name}|{key}")
                values[first - offset : last - offset] = stored[first - rank * shard_size : last - rank * shard_size]
        return values

    def _shard(self, rank: int) -> Any:
        if rank not in self._shards:
            file = self._opened.enter_context(self._storage.reading(self._folder, shard_name(rank)))
            self._shards[rank] = self._opened.enter_context(safetensors.safe_open(file, framework="pt"))
        return self._shards[rank]


class HostCopy:
    """Copies slices to the host's memory, by way of two pinned buffers.

    An accelerator copies to pinned memory at several times the speed of other memory; pinning a whole snapshot would
    take that memory from everybody else, and take long.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def __call__(self, values: Tensor) -> Tensor:
        """A copy always: slices are views of one flat buffer, which the next step changes and safetensors refuses."""
        values = values.detach()
        if values.device.type != "cuda":
            return values.clone()
        if not self._buffers:
            self._buffers = [torch.empty(_PINNED_BYTES // 4, pin_memory=True) for _ in range(2)]
        return copied_through(self._buffers, values, torch.cuda.Event)


class _Event(Protocol):
    """An event of a device, as far as copies need one."""

    def record(self) -> None:
        """Queue the event: it happens when what was queued before is done."""
        ...

    def synchronize(self) -> None:
        """Wait until the event has happened."""
        ...


def copied_through(buffers: Sequence[Tensor], values: Tensor, new_event: Callable[[], Any]) -> Tensor:
    """A copy of a tensor in the host's memory, made part by part.

    While one buffer is filled from the device, the one before is emptied into the copy.

    Args:
        buffers: float32, of equal size, in memory that the device copies to at full speed.
        values: on the device.
        new_event: makes an event of the device.
    """
    copied = torch.empty(values.shape, dtype=values.dtype)
    whole, parts = copied.flatten(), values.flatten().split(buffers[0].nbytes // values.element_size())
    offset, on_the_way = 0, deque[tuple[Tensor, Tensor, _Event]]()
    for number, part in enumerate(parts):
        if len(on_the_way) == len(buffers):
            _land(*on_the_way.popleft())
        buffer = buffers[number % len(buffers)].view(values.dtype)[: part.numel()]
        buffer.copy_(part, non_blocking=True)
        arrived = new_event()
        arrived.record()
        on_the_way.append((whole[offset : offset + part.numel()], buffer, arrived))
        offset += part.numel()
    for item in on_the_way:
        _land(*item)
    return copied


def _land(target: Tensor, buffer: Tensor, arrived: _Event) -> None:
    arrived.synchronize()
    target.copy_(buffer)
