"""How stages are executed: precision, sharding, checkpoints."""

import math
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.section import MAX_SECONDS, MAX_STEPS, MAX_WORKERS, Section, SectionWithNewerKeys


class ZeroConfig(Section):
    """How ZeRO-3 shards, gathers and offloads. Apart from `reduce_precision`, none of it changes what is computed."""

    max_gathered_gib: float = Field(2.0, ge=0, le=1_000_000)
    """Limit on gathered weights. A model that fits within it stays gathered on every rank between steps, so its weights
    are not gathered for every micro-batch. Of a larger model, a layer stays gathered if no more than this is gathered
    until it is needed again. Below 0.2, layers are not prefetched; 0 gathers one layer at a time. A single rank has
    all weights whole."""
    reduce_bucket_elements: int = Field(50_000_000, ge=1000, le=2_000_000_000)
    """Number of gradient elements that are reduced in one collective."""
    reduce_precision: Literal["float32", "bfloat16"] = "float32"
    """Precision in which gradients are exchanged between ranks. `bfloat16` halves the traffic but rounds the sum over
    the ranks in every micro-batch, so results for different numbers of ranks differ by more than float32 rounding."""
    sub_group_elements: int = Field(100_000_000, ge=1000, le=1_000_000_000_000)
    """Number of elements of a rank's shard that are updated at a time. Their gradients are copied for the update."""
    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where the optimizer state is offloaded to. A checkpoint made with `nvme` can only be resumed with `cpu` or
    `none`."""
    offload_weights: bool = False
    """With `offload: cpu`, also offload each rank's shard of the weights."""
    nvme_path: LocalPath | None = None
    """Folder on a local NVMe disk; required by `offload: nvme`."""
    secondary_partition_ranks: int = Field(1, ge=1, le=MAX_WORKERS)
    """hpZ: number of consecutive ranks (usually those of a node) that hold a second sharded copy of the weights, so
    that the backward pass gathers within the node. 1 turns it off."""

    @model_validator(mode="after")
    def offload_has_a_place(self) -> Self:
        """NVMe offload needs a folder, and weights can be offloaded to the host only."""
        if (self.offload == "nvme") != (self.nvme_path is not None):
            raise ValueError("zero.offload=nvme needs zero.nvme_path, and zero.nvme_path needs zero.offload=nvme")
        if self.offload_weights and self.offload != "cpu":
            raise ValueError(
                "zero.offload_weights needs zero.offload=cpu; weights on NVMe cannot be set, and a stage in bfloat16 "
                "sets them to the float32 weights that it starts from"
            )
        return self


class LoraConfig(SectionWithNewerKeys):
    """Low-rank adapters (LoRA): train small matrices beside frozen weights, and merge them at the end of a stage. The
    adapter itself is kept beside the merged model."""

    newer_keys = frozenset({"rank_stabilized", "weight_decomposed"})

    rank: int = Field(16, ge=1, le=65_536)
    """Rank of an adapter's matrices."""
    alpha: float = Field(32.0, ge=1e-6, le=1e6)
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    rank_stabilized: bool = False
    """Multiply by alpha / √rank instead, so that large ranks learn as fast as small ones (rsLoRA, arXiv:2312.03732)."""
    weight_decomposed: bool = False
    """Train the length of every row of an adapted weight as well; an adapter then only turns the row (DoRA,
    arXiv:2402.09353). Every forward pass computes these lengths from the whole weight."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability at an adapter's input."""
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get an adapter, such as `q_proj`. Default: every linear layer except the output
    projection; of a mixture of experts, those outside its blocks of experts, which are the attention's."""


class TrainingConfig(Section):
    """How stages are executed, apart from their optimisation."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision. `auto` is bfloat16 on accelerators and float32 on a CPU, where bfloat16 rehearses what an
    accelerator computes; it is faster there only on processors with instructions for it (AVX512-BF16, AMX). Master
    weights and gradient accumulation are always float32."""
    export_precision: Literal["compute", "float32"] = "compute"
    """Precision of the model folder that a stage exports: the master weights rounded to the compute precision
    (`compute`), or unrounded, with 4 bytes per parameter (`float32`). Whatever loads the folder takes the precision
    from it, so that a model in float32 is also evaluated and served in float32, unless a server is told otherwise."""
    keep_masters: bool = False
    """Keep the float32 master weights of every finished stage beside its model folder (4 bytes per parameter), so that
    a stage that is added to the configuration later can continue from them. Otherwise they are deleted when no stage of
    the run needs them any more. In float32 the model folder itself contains them."""
    micro_batch_tokens: int = Field(4096, ge=8, le=10_000_000)
    """Maximum number of tokens in one packed row, which is the micro-batch of a rank, or of the
    `sequence_parallel_ranks` that compute it together."""
    sequence_parallel_ranks: int = Field(1, ge=1, le=MAX_WORKERS)
    """Number of consecutive ranks that compute a packed row together, each a part of its tokens (Ulysses sequence
    parallelism). A row may then be so many times longer than what a rank has memory for. It must divide
    `cluster.num_workers` and the model's number of attention heads. Without dropout, results do not depend on it."""
    zero: ZeroConfig = ZeroConfig()
    """How the model is sharded."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights; `training.lora={}` uses the defaults."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass. This needs less memory and about a third more time."""
    offload_activations: bool = False
    """Hold what `gradient_checkpointing` keeps, the inputs of all layers, in the host's memory. On an accelerator this
    frees their memory, and takes the time of copying them there and back. On a CPU it changes nothing."""
    mlp_chunk_tokens: int | None = Field(None, ge=1, le=10_000_000)
    """Number of tokens that the feed-forward block of a layer computes at a time, and recomputes in the backward pass.
    This saves memory where rows are long. In bfloat16 the gradients of the block's weights are rounded once more per
    chunk, so prefer few large chunks. Default: all tokens of a row at once."""
    logit_chunk_positions: int | None = Field(None, ge=1, le=10_000_000)
    """Number of positions whose logits are computed at a time, and recomputed in the backward pass. This saves the
    memory of a large vocabulary's logits and takes a third more time in the output projection. In bfloat16 the
    projection's gradient is rounded once more per chunk, so prefer few large chunks. Default: all positions of a row at
    once."""
    checkpoint_every_steps: int = Field(50, ge=1, le=MAX_STEPS)
    """Number of steps between checkpoints, from which an interrupted stage resumes."""
    checkpoint_storage: Location | None = None
    """URI of an object store for checkpoints, such as `s3://bucket/checkpoints`; its credentials come from the
    environment. Default: the run directory. All other files of a run are always on a file system."""
    segment_metrics_every_steps: int = Field(10, ge=1, le=MAX_STEPS)
    """In a key stage, number of steps between measurements of the segments that it does not train."""
    gradient_cosines_every_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Number of steps between comparisons of the segments' gradients: the cosine between those of the reasoning and of
    the answer is below 0 where learning one unlearns the other. Each takes a forward and a backward pass per segment,
    and a copy of the rank's part of every gradient in the host's memory. Default: never."""
    collectives_every_steps: int = Field(50, ge=1, le=MAX_STEPS)
    """Number of steps between measurements of the time spent in collectives. In such a step, one micro-batch of rank 0
    is profiled."""
    profile_steps: tuple[Annotated[int, Field(ge=0, le=MAX_STEPS)], ...] = ()
    """Numbers of steps of every stage, from 0 on, of which each rank writes a trace of torch's profiler to `traces` in
    the stage's folder. Traced steps are slower; the first ones show what happens only once."""
    max_failures: int = Field(3, ge=0, le=1_000_000)
    """Maximum number of consecutive restarts without a new checkpoint, after a lost worker, node or connection, before
    the stage fails. Errors that would occur again, such as a non-finite loss, are not retried."""
    collective_timeout_seconds: int = Field(600, ge=5, le=MAX_SECONDS)
    """Maximum time to wait for another rank in a collective before the workers are restarted."""
    storage_timeout_seconds: int = Field(3600, ge=5, le=MAX_SECONDS)
    """Maximum time for ranks to wait for each other where they read or write: a whole model (700 s for 70B parameters
    at 200 MB/s), their parts of a checkpoint or of the master weights, and the guard's model with the responses that
    they generate. After it the storage counts as not responding, and the stage is restarted."""

    @model_validator(mode="after")
    def memory_is_saved_where_it_can_be(self) -> Self:
        """Only recomputation keeps inputs alone, and adapters are gathered module by module."""
        if self.offload_activations and not self.gradient_checkpointing:
            raise ValueError("training.offload_activations needs training.gradient_checkpointing=true")
        if self.mlp_chunk_tokens is not None and self.lora is not None:
            raise ValueError("training.mlp_chunk_tokens and training.lora cannot be combined; set one of them to null")
        return self

    @model_validator(mode="after")
    def lengths_can_be_set(self) -> Self:
        """Lengths of rows start from those of the float32 weights, which DeepSpeed cannot set on NVMe."""
        if self.zero.offload == "nvme" and self.lora is not None and self.lora.weight_decomposed:
            raise ValueError(
                "training.lora.weight_decomposed and training.zero.offload=nvme cannot be combined; set "
                "training.zero.offload=cpu"
            )
        return self

    @property
    def group_sizes(self) -> dict[str, int]:
        """The numbers that must divide the number of ranks, by their keys."""
        return {
            "training.zero.secondary_partition_ranks": self.zero.secondary_partition_ranks,
            "training.sequence_parallel_ranks": self.sequence_parallel_ranks,
        }

    @property
    def ranks_multiple(self) -> int:
        """The least number of ranks that all of `group_sizes` divide; every possible number is a multiple of it."""
        return math.lcm(*self.group_sizes.values())

    @field_validator("checkpoint_storage")
    @classmethod
    def storage_is_a_uri(cls, value: str | None) -> str | None:
        """A path could mean a different folder on every node."""
        if value is not None and not urlsplit(value).scheme:
            raise ValueError(
                "checkpoint_storage must be a URI such as s3://bucket/checkpoints, without credentials: set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or your cloud's variables, on all nodes"
            )
        return value
