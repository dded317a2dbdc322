"""Master weights and moments of a model that ZeRO-3 partitions: each rank's slices, and whole parameters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sftkey_dist.errors import TrainingError
from sftkey_dist.training.checkpoint.shards import SliceReader
from sftkey_dist.training.engine.library import deepspeed
from sftkey_dist.training.engine.ranks import Ranks

_MASTER = "master"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_MOMENTS_OF_MUON = ("momentum_buffer",)


class PartitionedState:
    """The state of every trained parameter; see ShardedState and Masters."""

    def __init__(self, engine: Any, names: dict[int, str], ranks: Ranks, *, lies_on_nvme: bool) -> None:
        """
        Args:
            engine: DeepSpeed's.
            names: of its parameters as they were loaded, by `id`.
            ranks: the process group.
            lies_on_nvme: whether the state is offloaded to NVMe.
        """
        self._optimizer, self._rank, self._lies_on_nvme = engine.optimizer, ranks.rank, lies_on_nvme
        self._store_collectives = ranks.store_collectives
        self._trained = {names[id(p)]: p for p in engine.module.parameters() if p.requires_grad}

    @property
    def names(self) -> Iterable[str]:
        """See Masters."""
        return self._trained.keys()

    def local_state(self) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        """See ShardedState."""
        for name, parameter in self._trained.items():
            slices = {_MASTER: deepspeed.utils.safe_get_local_fp32_param(parameter)}
            for key in _moments(is_muon=parameter.use_muon):
                slices[key] = deepspeed.utils.safe_get_local_optimizer_state(parameter, key)
            yield name, int(parameter.ds_numel), slices

    def load_local_state(self, slices_of: SliceReader, optimizer_steps: int) -> None:
        """See ShardedState; AdamW corrects its bias by the updates that the moments have seen.

        Raises:
            TrainingError: the state lies on NVMe, where deepspeed 0.19 does not let it be set.
        """
        if self._lies_on_nvme:
            raise TrainingError(
                "a checkpoint cannot be loaded with training.zero.offload=nvme; go on with training.zero.offload=cpu "
                "or none, the checkpoint is the same"
            )
        with self._being_set():
            self._create_moments(optimizer_steps)
            for name, parameter in self._trained.items():
                offset, size = self._slice_of(parameter)
                self._set_master(parameter, slices_of(name, _MASTER, offset, size))
                for key in _moments(is_muon=parameter.use_muon):
                    values = slices_of(name, key, offset, size)
                    deepspeed.utils.safe_set_local_optimizer_state(parameter, values, key)

    def set_masters(self, names: Iterable[str], range_of: Callable[[str, int, int], Tensor]) -> None:
        """See Masters."""
        with self._being_set():
            for name in names:
                self._set_master(self._trained[name], range_of(name, *self._slice_of(self._trained[name])))

    def local(self, name: str) -> Tensor:
        """See Masters."""
        values: Tensor = deepspeed.utils.safe_get_local_fp32_param(self._trained[name])
        return values

    def whole(self, parameter: Any) -> Tensor:
        """See Masters."""
        if parameter.requires_grad:
            master: Tensor = deepspeed.utils.safe_get_full_fp32_param(parameter)
            return master.detach()
        with deepspeed.zero.GatheredParameters([parameter]):
            frozen: Tensor = parameter.detach().float().clone()
        return frozen

    def take_gradient(self) -> Tensor:
        """See Engine."""
        gradient = torch.empty(sum(self._sizes), dtype=torch.float32)
        for parameter, values in zip(self._trained.values(), gradient.split(self._sizes), strict=True):
            values.copy_(deepspeed.utils.safe_get_local_grad(parameter))
        self._optimizer.zero_grad()
        return gradient

    def put_gradient(self, gradient: Tensor) -> None:
        """See Engine; DeepSpeed's optimizer still refers to the slices that are overwritten here."""
        for parameter, values in zip(self._trained.values(), gradient.split(self._sizes), strict=True):
            deepspeed.utils.safe_set_local_grad(parameter, values)

    def squared_norm_of_gradient(self) -> Tensor:
        """Squared norm of this rank's slices of the gradient, float64 []."""
        slices = map(deepspeed.utils.safe_get_local_grad, self._trained.values())
        return torch.stack([torch.linalg.vector_norm(part).double().square().cpu() for part in slices]).sum()

    def scale_gradient(self, factor: float) -> None:
        """Multiply this rank's slices of the gradient."""
        for parameter in self._trained.values():
            scaled = deepspeed.utils.safe_get_local_grad(parameter) * factor
            deepspeed.utils.safe_set_local_grad(parameter, scaled)

    @contextmanager
    def _being_set(self) -> Iterator[None]:
        """DeepSpeed brings its own copies up to date when the block ends.

        It gathers small parameters for that. Ranks that read at different speeds wait for each other before it, because
        a collective may not wait as long.
        """
        self._optimizer.checkpoint_event_prologue()
        yield
        self._store_collectives.gather("")
        self._optimizer.checkpoint_event_epilogue()

    @property
    def _sizes(self) -> list[int]:
        """Number of elements of this rank's slice of every parameter."""
        return [self._slice_of(parameter)[1] for parameter in self._trained.values()]

    def _slice_of(self, parameter: Any) -> tuple[int, int]:
        """Offset and number of elements of this rank's part of the flat parameter."""
        size = int(parameter.ds_tensor.numel())
        return size * self._rank, size

    def _set_master(self, parameter: Any, values: Tensor) -> None:
        deepspeed.utils.safe_set_local_fp32_param(parameter, values)
        parameter.ds_tensor.data.copy_(values)

    def _create_moments(self, optimizer_steps: int) -> None:
        """Optimizers make their state at the first update; a resumed stage needs it before."""
        state, optimizer = self._optimizer.optimizer.state, self._optimizer
        for flat, group in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
            # Where the fused kernel wants it: beside its parameter (torch/optim/adam.py).
            steps = torch.tensor(float(optimizer_steps), dtype=torch.float32, device=flat.device)
            is_muon = group[0].use_muon
            state[flat] = {} if is_muon else {"step": steps}
            state[flat] |= {key: torch.zeros_like(flat) for key in _moments(is_muon=is_muon)}


def _moments(*, is_muon: bool) -> tuple[str, ...]:
    return _MOMENTS_OF_MUON if is_muon else _MOMENTS
