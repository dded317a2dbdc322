"""How stages run: precision, sharding, checkpoints."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.section import MOST_SECONDS, MOST_STEPS, MOST_WORKERS, Section


class ZeroConfig(Section):
    """How ZeRO-3 shards, gathers and offloads. None of it changes what is computed."""

    max_gathered_gib: float = Field(2.0, ge=0, le=1_000_000)
    """A model whose weights take no more than this stays gathered on every rank between steps, which saves gathering
    them for every micro-batch. Of a larger one, layers that are needed again within so much stay, and others are
    gathered again. Below 0.2 the next layers are not gathered ahead; 0 holds one at a time."""
    reduce_bucket_elements: int = Field(50_000_000, ge=1000, le=2_000_000_000)
    """Gradient elements reduced in one collective."""
    reduce_precision: Literal["float32", "bfloat16"] = "float32"
    """Precision that gradients travel in between ranks. bfloat16 halves that traffic and rounds every micro-batch's sum
    over the ranks, so that another number of ranks is no longer the same to float error."""
    sub_group_elements: int = Field(100_000_000, ge=1000, le=1_000_000_000_000)
    """Elements of a rank's shard that are updated at a time; their gradients are copied for it."""
    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where optimizer state lives when it is not on the accelerator. A checkpoint made with `nvme` is resumed from with
    `cpu` or `none` alone."""
    offload_weights: bool = False
    """Keep this rank's shard of the weights where the optimizer state is offloaded to."""
    nvme_path: LocalPath | None = None
    """Folder on a local NVMe disk, for `offload: nvme`."""
    secondary_partition_ranks: int = Field(1, ge=1, le=MOST_WORKERS)
    """hpZ: so many neighbouring ranks (those of a node) hold a second sharded copy of the weights, so that the
    backward pass gathers within the node; 1 for none."""

    @model_validator(mode="after")
    def offload_has_a_place(self) -> Self:
        """NVMe offload needs a folder, weights an offload."""
        if (self.offload == "nvme") != (self.nvme_path is not None):
            raise ValueError("zero.offload=nvme and zero.nvme_path go together")
        if self.offload_weights and self.offload == "none":
            raise ValueError("zero.offload_weights needs zero.offload=cpu or nvme")
        return self


class LoraConfig(Section):
    """Low-rank adapters: train small matrices beside frozen weights, and merge them when a stage ends."""

    rank: int = Field(16, ge=1, le=65_536)
    """Inner dimension of an adapter."""
    alpha: float = Field(32.0, ge=1e-6, le=1e6)
    """Adapters are scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before an adapter."""
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get one, such as `q_proj`; by default every linear layer but the output projection."""


class TrainingConfig(Section):
    """How stages run, beside their optimisation."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision; `auto` is bfloat16 on accelerators and float32 on CPU, where bfloat16 is a slow rehearsal of
    the accelerator's run. Master weights and gradient accumulation are float32 always."""
    export_precision: Literal["compute", "float32"] = "compute"
    """Precision of the model folder that a stage ends in: the master weights rounded to the compute precision, or as
    they are, 4 bytes a parameter."""
    keep_masters: bool = False
    """Keep the float32 master weights of every finished stage, 4 bytes a parameter beside its model folder, so that a
    stage that is added to the configuration later can continue from them. Otherwise they go when no stage of the run
    needs them any more; in float32, the model folder holds them."""
    micro_batch_tokens: int = Field(4096, ge=8, le=10_000_000)
    """Most tokens in one packed row, the micro-batch of a rank."""
    zero: ZeroConfig = ZeroConfig()
    """How the model is sharded."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights; `training.lora={}` takes the defaults."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    logit_chunk_positions: int | None = Field(None, ge=1, le=10_000_000)
    """Compute logits of so many positions at a time, and once more in the backward pass: the memory of a large
    vocabulary's logits goes, for a third more time in the output projection. In bfloat16 the projection's gradient is
    rounded once more for every chunk, so that few large ones are better. None computes a row's at once."""
    checkpoint_every_steps: int = Field(50, ge=1, le=MOST_STEPS)
    """Steps between checkpoints from which an interrupted stage resumes."""
    checkpoint_storage: Location | None = None
    """URI of an object store for checkpoints, such as `s3://bucket/checkpoints`, with credentials from the
    environment; by default they lie in the run directory. The rest of a run is on a file system always."""
    segment_metrics_every_steps: int = Field(10, ge=1, le=MOST_STEPS)
    """In a key stage, steps between measurements of the segments it does not train."""
    collectives_every_steps: int = Field(50, ge=1, le=MOST_STEPS)
    """Steps between measurements of how long collectives run; a profiler watches a micro-batch of rank 0 in such a
    step."""
    max_failures: int = Field(3, ge=0, le=1_000_000)
    """Restarts in a row without a new checkpoint, after a lost worker, node or connection, before a stage gives up.
    What would fail again, such as a loss that is no number, is not tried again."""
    collective_timeout_seconds: int = Field(600, ge=5, le=MOST_SECONDS)
    """Longest wait for another rank in a collective before the workers are restarted."""
    storage_timeout_seconds: int = Field(3600, ge=5, le=MOST_SECONDS)
    """Longest wait for what ranks read and write: a whole model by the first rank (at 200 MB/s one of 70B takes 700 s),
    and everybody's part of a checkpoint. What takes longer counts as a storage that does not answer: the stage is tried
    again."""

    @field_validator("checkpoint_storage")
    @classmethod
    def storage_is_a_uri(cls, value: str | None) -> str | None:
        """A path would be another folder on every node."""
        if value is not None and not urlsplit(value).scheme:
            raise ValueError(
                "checkpoint_storage is a URI such as s3://bucket/checkpoints, without credentials: set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the cloud's own, on all nodes"
            )
        return value
