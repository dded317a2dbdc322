"""ZeRO-3 behind five verbs: forward, backward, step, read state, write state. The only place that knows DeepSpeed.

Scaling (deepspeed 0.19, runtime/zero/stage3.py): gradients are averaged over ranks in the reduce-scatter, and
``backward`` would divide by the accumulation steps unless ``scale_wrt_gas=False``. Our loss is a sum over all
ranks and micro-batches divided by the plan's denominator W, so each micro-batch passes ``sum · world_size / W``:
the average over ranks takes ``world_size`` out again. Accumulation ends where we say, because micro-batches per
step vary.
"""

import gc
import inspect
import math
import os
import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import transformers
from torch import Tensor
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from sftkey_dist.config.model import Attention
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import LoraConfig, ZeroConfig
from sftkey_dist.errors import ModelError, TrainingError
from sftkey_dist.files import remove_tree
from sftkey_dist.models.accelerator import without_cudnn_attention
from sftkey_dist.models.generation_config import mend_generation_config
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.models.shape import count_parameters, decoder_cost, decoder_layers, shape_of
from sftkey_dist.run_dir.artifacts.training import Rounding
from sftkey_dist.sampler import CostModel
from sftkey_dist.startup import leaving_functions_uncompiled, loading_libraries
from sftkey_dist.training.allocator import return_freed_memory
from sftkey_dist.training.attention import PACKED, PrefixMemory, register_packed_attention
from sftkey_dist.training.checkpoint.shards import SliceReader
from sftkey_dist.training.collate import PackedRow, dummy_row, split_before_targets
from sftkey_dist.training.flops import ModelFlops
from sftkey_dist.training.head import ChunkedHead
from sftkey_dist.training.lora import ExportedWeight, add_adapters, base_of, exported_weights
from sftkey_dist.training.loss import token_losses
from sftkey_dist.training.masters import StoredWeights, commit_masters, owners_of, update_sums, write_masters
from sftkey_dist.training.meeting import Meeting

# DeepSpeed loads two modules that are not used here: its autotuner, which imports MLflow, and its Muon optimizer, which
# has torch compile a function. Muon is imported here because every engine would import it otherwise.
with loading_libraries(without=("mlflow",)), leaving_functions_uncompiled():
    import deepspeed
    import deepspeed.ops
    import deepspeed.runtime.zero.muon.muon_optimizer
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
    from deepspeed.utils import groups

T = TypeVar("T")

MASTER = "master"
MOMENTS = ("exp_avg", "exp_avg_sq")
_GATHERED_FOR_GOOD_ELEMENTS = 100_000
"""Norms and biases up to so large are not worth gathering every time (deepspeed's default)."""
_GATHERED_AHEAD_ELEMENTS = 50_000_000
"""Gathered while the layers before are computed (deepspeed's default); more where a layer has a larger matrix."""


@dataclass(frozen=True)
class EngineSettings:
    """How a model is loaded and optimised."""

    optimization: OptimizationConfig
    precision: Literal["float32", "bfloat16"]
    attention: Attention
    gradient_checkpointing: bool
    logit_chunk_positions: int | None
    trust_remote_code: bool
    zero: ZeroConfig
    lora: LoraConfig | None
    seed: int
    storage_timeout_seconds: float = 3600.0


def join_process_group() -> None:
    """Let DeepSpeed adopt the process group that the launcher made."""
    # torch 2.13 deprecates collectives that deepspeed 0.19 calls several times a step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    if not torch.cuda.is_available():
        # None of its ops is to be compiled: that of shared memory takes over a minute, and fails without a compiler.
        # Left to find out which could be, it would run the compiler a dozen times.
        deepspeed.ops.__compatible_ops__ = {}
    without_cudnn_attention()
    deepspeed.utils.nvtx.enable_nvtx = False  # a call before and after each of tens of thousands of functions a step
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")


class ZeroEngine:
    """A causal language model sharded over all ranks; every method is called on all ranks together."""

    def __init__(self, model_dir: Path, settings: EngineSettings, masters_dir: Path | None = None) -> None:
        """Load the folder's weights straight into partitions.

        Args:
            model_dir: Hugging Face folder.
            settings: how the model is loaded and optimised.
            masters_dir: float32 weights that the folder's are rounded from; by default the folder's own are looked at,
                which may be stored in a higher precision than they are computed in.

        Raises:
            ModelError: the folder's weights cannot be loaded.
        """
        _reset_peak_memory()
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._attention, self._offload = settings.attention, settings.zero.offload
        self._has_adapters = settings.lora is not None
        self._meeting = Meeting(settings.storage_timeout_seconds)
        self._start = StoredWeights(masters_dir or model_dir)
        self._rounded_by_loading = self._start.finer_than(settings.precision)
        # While this object lives, from_pretrained partitions parameters as it creates them; were it collected,
        # every rank would silently hold the whole model.
        self._partitioned_loading = HfDeepSpeedConfig(
            deepspeed_config(settings, WeightSizes.expected(model_dir, settings))
        )
        model = _load(model_dir, settings)
        chunk = settings.logit_chunk_positions
        self._head = ChunkedHead(base_of(model).get_output_embeddings(), chunk) if chunk else None
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, settings.optimization.weight_decay),
            lr=settings.optimization.learning_rate,
            betas=settings.optimization.betas,
            eps=settings.optimization.epsilon,
            fused=True,
        )
        config = deepspeed_config(settings, WeightSizes.of(model))
        if not self._has_adapters:
            _gather_layers_whole(model)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._engine.train()
        return_freed_memory()  # of loading

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return torch.device(self._engine.device)

    @property
    def cost(self) -> CostModel:
        """What an example costs in this model."""
        return decoder_cost(self._engine.module.config)

    @property
    def flops(self) -> ModelFlops:
        """What a step needs in this model."""
        return ModelFlops.of(base_of(self._engine.module))

    @property
    def vocab_size(self) -> int:
        """Rows of the output projection."""
        return int(self._engine.module.config.vocab_size)

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory since the engine was made: on this rank's accelerator, or of its process on a CPU."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def forward(self, row: PackedRow) -> Tensor:
        """`token_losses` [K, 2] at the kept positions of a packed row."""
        return self._losses(row, **self._boundaries(row))

    def forward_behind_stopped_prefix(self, row: PackedRow) -> Tensor:
        """`forward`, with no gradient through what comes before each example's first kept position.

        Another objective than the exact one: keys and values of the prompt and the reasoning count as given. The
        backward pass then runs over the answers alone. Every rank calls the model twice, whatever its row holds.
        """
        prefix, rest = split_before_targets(row)
        called, memory = prefix or dummy_row().to(self.device), PrefixMemory()
        with torch.no_grad():
            self._call(called, example_lengths=called.example_lengths, remember=memory)
        recall = {"recall": memory} if prefix is not None else {}
        return self._losses(rest, example_lengths=rest.example_lengths, **recall)

    def _losses(self, row: PackedRow, **boundaries: Any) -> Tensor:
        if self._head is None:
            return token_losses(self._call(row, **boundaries), row.targets)
        with self._head.returning_losses(row.targets):
            return self._call(row, **boundaries)

    def _call(self, row: PackedRow, **boundaries: Any) -> Tensor:
        """The one place that calls the model.

        Without ``use_cache=False`` and with any mask, examples of a row would see each other.
        """
        output = self._engine(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=row.kept_positions,
            **boundaries,
        )
        logits: Tensor = output.logits[0]
        return logits

    def forward_without_dropout(self, row: PackedRow) -> Tensor:
        """`forward` in evaluation mode."""
        return self._evaluated(self._losses, row)

    def logits_without_dropout(self, row: PackedRow) -> Tensor:
        """Logits [K, V] at the kept positions of a packed row, all at once, in evaluation mode."""
        return self._evaluated(self._call, row)

    @torch.no_grad()
    def _evaluated(self, forward: Callable[..., Tensor], row: PackedRow) -> Tensor:
        self._engine.eval()
        result = forward(row, **self._boundaries(row))
        self._engine.train()
        return result

    def backward(self, loss: Tensor, *, ends_step: bool) -> None:
        """Accumulate gradients; ``loss`` is already scaled by world size over the step's denominator."""
        self._engine.set_gradient_accumulation_boundary(ends_step)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Clip, update, and return the global gradient norm before clipping (NaN when it was not finite).

        DeepSpeed skips the update on all ranks when a gradient is not finite.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        if not self._engine.was_step_applied():
            return float("nan")
        return float(self._engine.get_global_grad_norm())

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of a tensor."""
        reduced = values.to(self.device)
        dist.all_reduce(reduced)
        return reduced.cpu()

    def gather_to_all(self, value: T) -> list[T]:
        """The values of all ranks, in rank order."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def without_partitioning(self) -> Iterator[None]:
        """While the block lasts, transformers loads models whole and each rank generates for itself.

        It would partition them, and have every rank generate as many tokens as the longest output of all.
        """
        unset_hf_deepspeed_config()
        try:
            yield
        finally:
            set_hf_deepspeed_config(self._partitioned_loading)

    def local_state(self) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        """This rank's slice of the state: parameter name, its full number of elements, float32 slices by key.

        Slices of all ranks, joined in rank order, are the flat parameter followed by padding.
        """
        for parameter in self._trainable():
            slices = {MASTER: deepspeed.utils.safe_get_local_fp32_param(parameter)}
            for key in MOMENTS:
                slices[key] = deepspeed.utils.safe_get_local_optimizer_state(parameter, key)
            yield self._names[id(parameter)], int(parameter.ds_numel), slices

    def load_local_state(self, slices_of: SliceReader, optimizer_steps: int) -> None:
        """Set this rank's slice of the state to what the reader returns for it.

        Args:
            slices_of: called with (parameter name, key, offset, number of elements); elements past the end of the
                parameter are padding.
            optimizer_steps: updates that the moments have seen, for AdamW's bias correction.

        Raises:
            TrainingError: the state lies on NVMe, where deepspeed 0.19 does not let it be set.
        """
        if self._offload == "nvme":
            raise TrainingError(
                "a checkpoint cannot be loaded with training.zero.offload=nvme; go on with training.zero.offload=cpu "
                "or none, the checkpoint is the same"
            )
        optimizer = self._engine.optimizer
        optimizer.checkpoint_event_prologue()
        self._create_moments(optimizer_steps)
        for parameter in self._trainable():
            name, size = self._names[id(parameter)], parameter.ds_tensor.numel()
            offset = size * self.rank
            master = slices_of(name, MASTER, offset, size)
            deepspeed.utils.safe_set_local_fp32_param(parameter, master)
            parameter.ds_tensor.data.copy_(master)
            for key in MOMENTS:
                deepspeed.utils.safe_set_local_optimizer_state(parameter, slices_of(name, key, offset, size), key)
        optimizer.checkpoint_event_epilogue()

    def start_from_masters(self) -> int:
        """Set the masters to what the stage starts from, which loading has rounded to the compute precision.

        Returns:
            Trained weights that the folder does not name as the model does, and that keep their rounding.
        """
        if not self._rounded_by_loading:
            return 0
        optimizer, unknown = self._engine.optimizer, 0
        optimizer.checkpoint_event_prologue()
        for parameter in self._trainable():
            name, size = self._names[id(parameter)], parameter.ds_tensor.numel()
            if name in self._rounded_by_loading:
                master = self._start.range(name, size * self.rank, size)
                deepspeed.utils.safe_set_local_fp32_param(parameter, master)
                parameter.ds_tensor.data.copy_(master)
            elif name not in self._start and not self._has_adapters:
                unknown += 1
        optimizer.checkpoint_event_epilogue()
        return unknown

    def end_responses_with(self, end_of_turn_id: int) -> str:
        """Have generation from the exported model stop where responses were taught to end.

        A base model's own end-of-sequence token is often another one, and generation would run past the answer.

        Returns:
            What else had to be changed in the generation configuration to save it; empty where nothing had.

        Raises:
            ValueError: transformers refuses to save it.
        """
        config = base_of(self._engine.module).generation_config
        ends = config.eos_token_id
        others = {ends} if isinstance(ends, int) else set(ends or ())
        config.eos_token_id = [end_of_turn_id, *sorted(others - {end_of_turn_id})]
        return mend_generation_config(config)

    def save_pretrained(self, folder: Path, dtype: torch.dtype, *, with_weights: bool = True) -> None:
        """Write the model as a Hugging Face folder, from rank 0; parameters are gathered one at a time.

        Args:
            folder: where to.
            dtype: that the masters are rounded to.
            with_weights: without, all but the parameters is written.
        """
        module = base_of(self._engine.module)
        weights: dict[str, Tensor] = {}
        for weight in exported_weights(module) if with_weights else ():
            master = self._master(weight, is_wanted=self.rank == 0)
            if master is not None:
                weights[weight.name] = master.to(dtype).cpu().clone()
        if self.rank == 0:
            persistent = set(module.state_dict().keys())
            weights |= {name: value.cpu() for name, value in module.named_buffers() if name in persistent}
            module.save_pretrained(folder, state_dict=weights)
        self.wait_for_first_rank()

    def save_masters(self, folder: Path) -> None:
        """Write the float32 masters of every weight that is exported, each from one rank; see `masters`."""
        if self.rank == 0:
            remove_tree(folder)  # of an end that was interrupted before it was recorded
        self.wait_for_first_rank()
        owners, mine = self._owners(), dict[str, Tensor]()
        for weight in exported_weights(base_of(self._engine.module)):
            master = self._master(weight, is_wanted=owners[weight.name] == self.rank)
            if master is not None:
                mine[weight.name] = master.cpu().clone()
        notes = self._meeting.gather(write_masters(folder, self.rank, mine))
        if self.rank == 0:
            commit_masters(folder, notes)
        self.wait_for_first_rank()

    def compare_with_start(self, stored_dtype: torch.dtype) -> Rounding:
        """What the stage has changed so far, in its masters and in their rounding to the stored precision."""
        owners, sums = self._owners(), torch.zeros(4, dtype=torch.float64)
        for weight in exported_weights(base_of(self._engine.module)):
            is_mine = owners[weight.name] == self.rank and weight.name in self._start
            master = self._master(weight, is_wanted=is_mine)
            if master is not None:
                start = self._start.whole(weight.name).to(master.device)
                sums += update_sums(start, master, stored_dtype)
        return Rounding.of_sums(str(stored_dtype).removeprefix("torch."), self.all_reduce_sum(sums).tolist())

    def _owners(self) -> dict[str, int]:
        sizes = {w.name: math.prod(shape_of(w.parameter)) for w in exported_weights(base_of(self._engine.module))}
        return owners_of(sizes, self.world_size)

    def _master(self, weight: ExportedWeight, *, is_wanted: bool) -> Tensor | None:
        """A whole weight in float32, with its adapter merged; called on all ranks, returned where it is wanted.

        What is frozen has no master; where the folder that the stage started from holds it in float32, that counts.
        """
        whole = self._whole(weight.parameter)
        matrices = [self._whole(matrix) for matrix in weight.matrices] if weight.adapter is not None else []
        if not is_wanted:
            return None
        if not weight.parameter.requires_grad and weight.name in self._rounded_by_loading:
            whole = self._start.whole(weight.name).to(whole.device)
        return whole + weight.update(*matrices) if matrices else whole

    def _whole(self, parameter: Any) -> Tensor:
        """In float32, on all ranks."""
        if parameter.requires_grad:
            master: Tensor = deepspeed.utils.safe_get_full_fp32_param(parameter)
            return master.detach()
        with deepspeed.zero.GatheredParameters([parameter]):
            frozen: Tensor = parameter.detach().float().clone()
        return frozen

    def wait_for_first_rank(self) -> None:
        """Go on once rank 0 is here too, however long it reads or writes; no collective is held meanwhile."""
        self._meeting.after_first_rank()

    def close(self) -> None:
        """Free the model; the process group stays."""
        self._engine.destroy()
        self._start.close()
        del self._engine, self._partitioned_loading, self._head
        _forget_in_deepspeed()
        gc.collect()
        return_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _boundaries(self, row: PackedRow) -> dict[str, Any]:
        match self._attention:
            case "packed":
                return {"example_lengths": row.example_lengths, "cu_seq_lens": row.cu_seq_lens}
            case "packed_sdpa":
                return {"example_lengths": row.example_lengths}
            case "flash_attention_2":
                # Without these FlashAttention derives them from position ids and waits for the device in every layer.
                longest = max(row.example_lengths)
                return {
                    "cu_seq_lens_q": row.cu_seq_lens,
                    "cu_seq_lens_k": row.cu_seq_lens,
                    "max_length_q": longest,
                    "max_length_k": longest,
                }
            case "sdpa":
                return {}

    def _trainable(self) -> list[Any]:
        return [parameter for parameter in self._engine.module.parameters() if parameter.requires_grad]

    def _create_moments(self, optimizer_steps: int) -> None:
        """AdamW makes its state at the first update; a resumed stage needs it before."""
        state = self._engine.optimizer.optimizer.state
        for flat in self._engine.optimizer.fp32_partitioned_groups_flat:
            # Where the fused kernel wants it: beside its parameter (torch/optim/adam.py).
            state[flat] = {"step": torch.tensor(float(optimizer_steps), dtype=torch.float32, device=flat.device)}
            state[flat] |= {key: torch.zeros_like(flat) for key in MOMENTS}


@dataclass(frozen=True)
class WeightSizes:
    """Of a model in compute precision.

    Attributes:
        total_bytes: of all weights.
        largest_matrix: elements of the largest one in a layer.
    """

    total_bytes: int
    largest_matrix: int = 0

    @classmethod
    def expected(cls, model_dir: Path, settings: EngineSettings) -> "WeightSizes":
        """Of a folder's model, before it is loaded."""
        return cls(count_parameters(model_dir) * getattr(torch, settings.precision).itemsize)

    @classmethod
    def of(cls, model: Any) -> "WeightSizes":
        """Of a model whose weights are partitioned or not."""
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        outside = {id(layer.weight) for layer in ends if layer is not None}
        sizes = {id(p): math.prod(shape_of(p)) for p in model.parameters()}
        total = sum(sizes[id(p)] * p.element_size() for p in model.parameters())
        return cls(total, max((size for place, size in sizes.items() if place not in outside), default=0))


def deepspeed_config(settings: EngineSettings, sizes: WeightSizes) -> dict[str, Any]:
    """The DeepSpeed configuration: ZeRO stage 3, float32 accumulation in every precision.

    Args:
        settings: how the model is loaded and optimised.
        sizes: of the model.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.optimization.max_grad_norm,
        "zero_optimization": _zero_config(settings, sizes),
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": settings.precision == "bfloat16"},
        # Accumulating 64 micro-batches in bfloat16 is off by 8e-3; in float32 by 6e-9.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": {"float32": "fp32", "bfloat16": "bf16"}[settings.zero.reduce_precision],
        "steps_per_print": 10**9,
    }


def _zero_config(settings: EngineSettings, sizes: WeightSizes) -> dict[str, Any]:
    zero = settings.zero
    config: dict[str, Any] = {
        "stage": 3,
        "reduce_bucket_size": zero.reduce_bucket_elements,
        "sub_group_size": zero.sub_group_elements,
    }
    gathered_bytes = int(zero.max_gathered_gib * 2**30)
    if sizes.total_bytes <= gathered_bytes:
        config["stage3_param_persistence_threshold"] = sizes.total_bytes
        # Its replacement of torch's linear layers, in Python, keeps no gathered weight alive; here all are kept.
        config["memory_efficient_linear"] = False
    else:
        gathered_elements = gathered_bytes // getattr(torch, settings.precision).itemsize
        ahead = max(_GATHERED_AHEAD_ELEMENTS, sizes.largest_matrix)
        config["stage3_max_reuse_distance"] = gathered_elements
        config["stage3_param_persistence_threshold"] = min(gathered_elements, _GATHERED_FOR_GOOD_ELEMENTS)
        config["stage3_prefetch_bucket_size"] = min(gathered_elements, ahead)
        # deepspeed gathers ahead only below this bound (partitioned_param_coordinator.py, fetch_sub_module): with its
        # default of 1e9, keeping more than that gathered would end all gathering ahead.
        config["stage3_max_live_parameters"] = gathered_elements + 2 * config["stage3_prefetch_bucket_size"]
    if zero.secondary_partition_ranks > 1:
        config["zero_hpz_partition_size"] = zero.secondary_partition_ranks
    if zero.offload != "none":
        place: dict[str, Any] = {"device": zero.offload, "pin_memory": torch.cuda.is_available()}
        place |= {"nvme_path": str(zero.nvme_path)} if zero.nvme_path else {}
        config["offload_optimizer"] = place
        if zero.offload_weights:
            config["offload_param"] = place
    return config


def _load(model_dir: Path, settings: EngineSettings) -> Any:
    register_packed_attention()
    attention = PACKED if settings.attention.startswith("packed") else settings.attention
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=getattr(torch, settings.precision),
            attn_implementation=attention,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{model_dir}: cannot load the model: {loading_problem(error)}") from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelError(
            f"{model_dir}: {len(loading['missing_keys'])} weights of the architecture are not in the folder, such as "
            f"{missing}; they would start from random values"
        )
    if not all(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise AssertionError("the model was loaded whole on every rank instead of partitioned")
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.lora is not None:
        transformers.set_seed(settings.seed)
        model = add_adapters(model, settings.lora)
    return model


def _gather_layers_whole(model: Any) -> None:
    """Have ZeRO-3 gather a decoder layer at once, instead of each of its dozen modules.

    Its hooks run on the host before and after every module in both passes; on an H100 those of 28 layers took longer
    than the computation of rows of 4,096 tokens, so that the device waited. It also makes one collective of seven.
    (Not for adapters: of frozen layers, deepspeed 0.19 then gathers too little for the backward pass.)
    """
    with suppress(ModelError):  # an architecture without one list of layers is gathered module by module
        deepspeed.utils.set_z3_leaf_modules(model, list({type(layer) for layer in decoder_layers(model)}))


def _parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms and biases do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if len(shape_of(p)) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if len(shape_of(p)) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _forget_in_deepspeed() -> None:
    """Empty what deepspeed 0.19 keeps for the life of the process: the last model's modules, and hpZ's group.

    Workers go on to the next stage, which would find the last one's weights and moments still in memory.
    """
    cached = PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(cached).nonlocals["func"].cache_clear()
    parameter_offload.FWD_MODULE_STACK.clear()
    if (group := groups._ZERO_PARAM_INTRA_PARALLEL_GROUP) is not None:
        dist.destroy_process_group(group)
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None


def _reset_peak_memory() -> None:
    """A process may have trained a larger stage before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # no Linux, or a sandbox: then the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is used now (proc(5))


def limit_threads(num_threads: int) -> None:
    """Compute threads of this rank; a changed number changes the order of float sums."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
