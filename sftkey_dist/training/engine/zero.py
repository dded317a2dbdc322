"""The engine that shards a model by ZeRO-3.

Scaling (deepspeed 0.19, runtime/zero/stage3.py): gradients are averaged over ranks in the reduce-scatter, and
``backward`` would divide by the accumulation steps unless ``scale_wrt_gas=False``. Our loss is a sum over all
ranks and micro-batches divided by the plan's denominator W, so each micro-batch passes ``sum · world_size / W``:
the average over ranks takes ``world_size`` out again. Accumulation ends where we say, because micro-batches per
step vary.
"""

import gc
import math
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from sftkey_dist.models.shape import decoder_cost, experts_per_token
from sftkey_dist.sampler import CostModel
from sftkey_dist.training.allocator import return_freed_memory
from sftkey_dist.training.engine.deepspeed_config import WeightSizes, deepspeed_config
from sftkey_dist.training.engine.library import deepspeed, forget_last_model, limit_waits, orthogonalize_in
from sftkey_dist.training.engine.loading import layer_classes, load_partitioned
from sftkey_dist.training.engine.optimizer import make_optimizer, set_learning_rate
from sftkey_dist.training.engine.packed import PackedModel
from sftkey_dist.training.engine.ranks import Ranks
from sftkey_dist.training.engine.state import PartitionedState
from sftkey_dist.training.engine.weights import StageWeights
from sftkey_dist.training.forward.collate import PackedRow
from sftkey_dist.training.forward.flops import ModelFlops
from sftkey_dist.training.forward.head import ChunkedHead
from sftkey_dist.training.forward.objective import needs_entropy
from sftkey_dist.training.forward.router import RouterBalance, require_known_routers
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.weights.lora import base_of, read_beyond_their_layer
from sftkey_dist.training.weights.masters import StoredWeights, stored_masters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ZeroEngine(Ranks):
    """A causal language model sharded over all ranks; see Engine.

    Attributes:
        state: this rank's slices of master weights and moments.
        weights: float32 weights of the model, to start from and to write.
    """

    def __init__(self, job: StageJob) -> None:
        """Load the weights that the stage starts from straight into partitions.

        Raises:
            ModelError: they cannot be loaded.
        """
        _reset_peak_memory()
        start = stored_masters(job.masters_dir) if job.masters_dir else StoredWeights.in_folder(job.model_dir)
        # While this object lives, from_pretrained partitions parameters as it creates them; were it collected,
        # every rank would silently hold the whole model.
        expected = WeightSizes.expected(job.model_dir, job.precision)
        self._partitioned_loading = HfDeepSpeedConfig(deepspeed_config(job, expected, dist.get_world_size()))
        model = load_partitioned(job)
        chunk = job.training.logit_chunk_positions
        entropy = needs_entropy(job.stage.all_objectives)
        head = ChunkedHead(base_of(model).get_output_embeddings(), chunk) if chunk else None
        if job.stage.optimization.router_loss_weight:
            require_known_routers(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._engine = _initialize(model, job)
        limit_waits(job.training.collective_timeout_seconds)
        super().__init__(torch.device(self._engine.device), job.training)
        self._packed = PackedModel(self._engine, job.attention, head, self.sequence_group, with_entropy=entropy)
        self.state = PartitionedState(self._engine, names, self, lies_on_nvme=job.training.zero.offload == "nvme")
        optimization = job.stage.optimization
        self._clip_to = optimization.max_grad_norm if optimization.muon is not None else None
        self.weights = StageWeights(self, self._engine.module, self.state, start, job.precision)
        return_freed_memory()  # of loading

    @property
    def cost(self) -> CostModel:
        """See Engine."""
        return decoder_cost(self._engine.module.config)

    @property
    def flops(self) -> ModelFlops:
        """See Engine."""
        return ModelFlops.of(base_of(self._engine.module))

    @property
    def _experts_chosen(self) -> int:
        return experts_per_token(self._engine.module.config.get_text_config())

    @property
    def vocab_size(self) -> int:
        """See Engine."""
        return int(self._engine.module.config.vocab_size)

    @property
    def peak_memory_bytes(self) -> int:
        """See Engine."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def forward(self, row: PackedRow) -> Tensor:
        """See Engine."""
        return self._packed.losses(row)

    def router_balance(self, rows: Sequence[PackedRow]) -> RouterBalance:
        """See Engine."""
        counts = [self._packed.router_choices(row, self._experts_chosen) for row in map(self.place, rows)]
        return RouterBalance.of(self.all_reduce_sum(torch.stack(counts).sum(dim=0)), self._experts_chosen)

    def forward_with_router(self, row: PackedRow) -> tuple[Tensor, Tensor]:
        """See Engine."""
        return self._packed.losses_with_router(row)

    def forward_with_stopped_prefix(self, row: PackedRow) -> Tensor:
        """See Engine."""
        return self._packed.losses_with_stopped_prefix(row)

    def forward_without_dropout(self, row: PackedRow) -> Tensor:
        """See Engine."""
        return self._packed.losses_without_dropout(row)

    def predictions_without_dropout(self, row: PackedRow, number: int) -> Tensor:
        """See Engine."""
        return self._packed.predictions_without_dropout(row, number)

    def logits_without_dropout(self, row: PackedRow) -> Tensor:
        """See Engine."""
        return self._packed.logits_without_dropout(row)

    def backward(self, loss_sum: Tensor, denominator: float, *, ends_step: bool) -> None:
        """See Engine."""
        self._engine.set_gradient_accumulation_boundary(ends_step)
        self._engine.backward(loss_sum * (self.world_size / denominator), scale_wrt_gas=False)

    def take_gradient(self) -> Tensor:
        """See Engine."""
        return self.state.take_gradient()

    def put_gradient(self, gradient: Tensor) -> None:
        """See Engine."""
        self.state.put_gradient(gradient)

    def step(self, learning_rate: float) -> float:
        """See Engine; no rank updates when a gradient is not finite."""
        set_learning_rate(self._engine.optimizer.param_groups, learning_rate)
        own_norm = self._clipped_for_muon(self._clip_to) if self._clip_to is not None else None
        if own_norm is not None and not math.isfinite(own_norm):
            return own_norm
        self._engine.step()
        if not self._engine.was_step_applied():
            return float("nan")
        return own_norm if own_norm is not None else float(self._engine.get_global_grad_norm())

    def _clipped_for_muon(self, max_norm: float) -> float:
        """Clip the gradient before DeepSpeed makes updates of it; returns its norm before."""
        norm = math.sqrt(float(self.all_reduce_sum(self.state.squared_norm_of_gradient())))
        if 0 < max_norm < norm < math.inf:
            self.state.scale_gradient(max_norm / (norm + 1e-6))
        return norm

    @contextmanager
    def without_partitioning(self) -> Iterator[None]:
        """See Engine; transformers would have every rank generate as many tokens as the longest output of all."""
        unset_hf_deepspeed_config()
        try:
            yield
        finally:
            set_hf_deepspeed_config(self._partitioned_loading)

    def close(self) -> None:
        """See Engine."""
        self._engine.destroy()
        self.sequence_group.close()
        self.weights.close()
        del self._engine, self._partitioned_loading, self._packed, self.state, self.weights
        forget_last_model()
        gc.collect()
        return_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _initialize(model: "PreTrainedModel", job: StageJob) -> Any:
    """DeepSpeed's engine around a model that was loaded into partitions, in training mode."""
    optimizer = make_optimizer(model, job.stage.optimization)
    orthogonalize_in(job.precision)
    config = deepspeed_config(job, WeightSizes.of(model), dist.get_world_size())
    # A decoder layer is gathered at once, instead of each of its dozen modules: the hooks of ZeRO-3 run on the host
    # before and after every module in both passes; on an H100 those of 28 layers took longer than the computation of
    # rows of 4,096 tokens, so that the device waited. It also makes one collective of seven. (Not with adapters: of
    # frozen layers, deepspeed 0.19 then gathers too little for the backward pass.)
    if job.training.lora is None and (layers := layer_classes(model)):
        deepspeed.utils.set_z3_leaf_modules(model, layers)
    # DeepSpeed would find them when they are read, and gather them once more for that in every pass.
    for module, parameter in read_beyond_their_layer(base_of(model)):
        deepspeed.zero.register_external_parameter(module, parameter)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.train()
    return engine


def _reset_peak_memory() -> None:
    """A process may have trained a larger stage before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # no Linux, or a sandbox: then the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is used now (proc(5))
