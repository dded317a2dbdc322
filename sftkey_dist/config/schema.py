"""Every key a run can be given, with its meaning, unit and default."""

import datetime
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from sftkey_dist.config.data import DataConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.secrets import holds_credentials, is_named_like_a_secret
from sftkey_dist.config.section import MOST_SECONDS, MOST_STEPS, MOST_WORKERS, Section, Seed, zero_or_from
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.config.validation import ValidationConfig
from sftkey_dist.contract import Form, ResponseContract

Attention = Literal["packed", "packed_sdpa", "sdpa", "flash_attention_2"]
PresetName = Literal["sft", "sft-tag", "key-tag", "sftkey-tag"]
Share = Annotated[float, Field(ge=0, lt=1)]
LossWeight = Annotated[float, zero_or_from(1e-6), Field(ge=0, le=1_000_000)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class EmbeddedModelConfig(Section):
    """A small Qwen3-architecture model made from nothing, with a tokenizer built from the training data."""

    vocab_size: int = Field(1024, ge=300, le=1_000_000)
    """Upper bound of the byte-level BPE vocabulary."""
    hidden_size: int = Field(128, ge=16, le=65_536)
    """Width of the residual stream."""
    intermediate_size: int = Field(384, ge=16, le=1_000_000)
    """Width of the MLP."""
    num_layers: int = Field(4, ge=1, le=1000)
    """Number of decoder layers."""
    num_heads: int = Field(4, ge=1, le=1024)
    """Number of query heads."""
    num_kv_heads: int = Field(2, ge=1, le=1024)
    """Number of key/value heads (grouped-query attention)."""
    max_position_embeddings: int = Field(1024, ge=64, le=10_000_000)
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def heads_divide(self) -> Self:
        """Heads must divide the width, and key/value heads the heads."""
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must divide hidden_size={self.hidden_size} and be a multiple of "
                f"num_kv_heads={self.num_kv_heads}"
            )
        return self


class ModelConfig(Section):
    """The base model all strategies start from."""

    path: Location | None = None
    """Folder with a Hugging Face model, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; pin it for a reproducible run."""
    embedded: EmbeddedModelConfig | None = None
    """Make a small model instead of loading one; give this or `path`."""
    attention: Attention = "packed"
    """Training attention over packed rows. `packed`: torch's variable-length FlashAttention on accelerators in
    bfloat16, causal SDPA example by example elsewhere; `packed_sdpa`: the latter everywhere; `sdpa`: a dense block
    mask; `flash_attention_2`: the flash-attn package (GPU)."""
    trust_remote_code: bool = False
    """Run code that the model repository ships. Off unless you have read that code."""

    @model_validator(mode="after")
    def exactly_one_source(self) -> Self:
        """A model is loaded or made, not both."""
        if (self.path is None) == (self.embedded is None):
            raise ValueError("give exactly one of model.path and model.embedded")
        return self


class PromptConfig(Section):
    """How a prompt is written, the same in training and in generation."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """The tokenizer's chat template, the plain one below, or `auto`: chat if the tokenizer has one."""
    plain: str = "Question: {prompt}\nAnswer:\n"
    """Plain template; must contain `{prompt}` once."""
    system: str | None = None
    """System message for the chat template."""
    date: datetime.date | None = None
    """The date that a chat template prints which prints one, in training, generation and the exported model alike;
    default: the day on which the run was first prepared."""

    @property
    def without_date(self) -> "PromptConfig":
        """For a model folder whose template has the date written into it."""
        return self.model_copy(update={"date": None})

    @model_serializer(mode="wrap")
    def date_only_where_it_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Digests are the same as before there was a date where none is set."""
        return {key: value for key, value in handler(self).items() if key != "date" or value is not None}

    @model_validator(mode="after")
    def plain_has_its_field(self) -> Self:
        """The plain template is filled by plain replacement."""
        if self.plain.count("{prompt}") != 1:
            raise ValueError(f"prompt.plain must contain {{prompt}} exactly once, got {self.plain!r}")
        return self


class OptimizationConfig(Section):
    """Optimisation of one stage."""

    global_batch_size: int = Field(32, ge=1, le=100_000_000)
    """Examples per optimizer step, over all ranks and micro-batches."""
    num_epochs: int = Field(1, ge=1, le=1_000_000)
    """Passes over the training data."""
    look_ahead_steps: int = Field(4, ge=1, le=10_000)
    """Neighbouring steps that may exchange examples to level cost and loss tokens between them; 1 keeps the
    shuffled order as it is."""
    max_steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    """Stop after so many optimizer steps, if that comes first."""
    learning_rate: float = Field(1e-5, ge=1e-12, le=100)
    """Peak learning rate of AdamW."""
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """Final learning rate of the cosine, as a share of the peak."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps with linearly rising learning rate."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled weight decay of matrices; norms and biases have none."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's moment decays."""
    epsilon: float = Field(1e-8, ge=1e-20, le=1)
    """AdamW's epsilon."""
    max_grad_norm: Annotated[float, zero_or_from(1e-6)] = Field(1.0, ge=0, le=1e6)
    """Gradients are clipped to this global L2 norm; 0 turns clipping off."""


class OptimizationOverrides(Section):
    """Keys of `optimization` that a stage sets differently; absent ones are inherited."""

    global_batch_size: int | None = Field(None, ge=1, le=100_000_000)
    """See `optimization`."""
    num_epochs: int | None = Field(None, ge=1, le=1_000_000)
    """See `optimization`."""
    max_steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    """See `optimization`."""
    learning_rate: float | None = Field(None, ge=1e-12, le=100)
    """See `optimization`."""
    min_learning_rate_ratio: float | None = Field(None, ge=0, le=1)
    """See `optimization`."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """See `optimization`."""
    weight_decay: float | None = Field(None, ge=0, le=100)
    """See `optimization`."""

    @model_validator(mode="after")
    def null_is_not_inherited(self) -> Self:
        """A null that means nothing."""
        for key in sorted(self.model_fields_set - {"max_steps"}):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: null is no value; leave the key out to inherit that of optimization")
        return self

    @model_serializer(mode="wrap")
    def only_what_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is written must read back the same: an absent key is inherited, a null one is not."""
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    def applied_to(self, base: OptimizationConfig) -> OptimizationConfig:
        """The base with the keys that are set here replaced; `max_steps: null` lifts an inherited bound."""
        return OptimizationConfig.model_validate(base.model_dump() | self.model_dump(exclude_unset=True))


class StageConfig(Section):
    """One stage of a strategy of your own: a weight per segment and its optimisation."""

    name: Name
    """Short name for folders and tables, e.g. `full`."""
    weights: dict[str, LossWeight]
    """Loss weight per segment: names of the contract's segments, `tags`, `<segment>.open`, `<segment>.close`
    and `end_of_turn`. What is not named has weight 0."""
    optimization: OptimizationOverrides = OptimizationOverrides()
    """What this stage does differently from `optimization`."""
    stop_gradient_prefix: bool = False
    """See `key_stage`."""


class StrategyConfig(Section):
    """A strategy of your own: a list of stages over one form of the response."""

    name: Name
    """Name in folders, tables and MLflow."""
    form: Form = Form.TAGGED
    """Whether the response is trained with tags or in its plain convention."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Stages in order; each continues from the weights of the one before."""


class KeyStageConfig(Section):
    """What a key stage trains besides the text inside the key tags (the paper's choice: nothing)."""

    tags: bool = False
    """Also the opening and closing tags of key segments."""
    end_of_turn: bool = False
    """Also the end-of-turn token."""
    stop_gradient_prefix: bool = False
    """Compute prompt and reasoning without gradient, and run the backward pass over the answers alone: faster, and
    another objective than the paper's. Needs `model.attention: packed`. (Not for `key-tag`.)"""
    learning_rate_ratio: float = Field(0.05, ge=1e-6, le=1)
    """Peak learning rate of a key stage that continues from an earlier stage, over `optimization.learning_rate`. At a
    quarter and more small models forgot how to respond (RESULTS.md)."""
    optimization: OptimizationOverrides = OptimizationOverrides()
    """What else a key stage that continues from an earlier stage does differently from `optimization`; a learning rate
    here wins over the ratio."""


class ClusterConfig(Section):
    """Where the work runs."""

    address: Location | None = None
    """Address of a running Ray cluster (`auto` finds it); none starts a private one on this machine.
    The environment variable RAY_ADDRESS is honoured when this is not set."""
    allow_unauthenticated: bool = False
    """Use a cluster of other machines that asks for no token; whoever reaches it can run anything on it."""
    num_workers: int = Field(2, ge=1, le=MOST_WORKERS)
    """Data-parallel ZeRO-3 ranks."""
    min_workers: int | None = Field(None, ge=1, le=MOST_WORKERS)
    """Go on with so few ranks at least when nodes are lost, and with all again when they are back; by default a stage
    needs `num_workers` always. What is computed does not depend on the number."""
    cpus_per_worker: int = Field(1, ge=1, le=4096)
    """CPU cores, and compute threads, of each rank."""
    gpus_per_worker: int = Field(0, ge=0, le=1)
    """Accelerators of each rank."""
    wait_for_nodes_seconds: float = Field(0.0, ge=0, le=MOST_SECONDS)
    """How long to wait for a running cluster to have enough nodes; an autoscaler is asked for them."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment of the workers, of training and of generation, e.g. `{NCCL_IB_HCA: mlx5}`; it is written to the run
    directory, so secrets do not belong here."""
    network_interface: str | None = None
    """Interface for gloo and NCCL between hosts, e.g. `eth0`; needed where a host's name resolves to loopback."""

    @field_validator("environment")
    @classmethod
    def environment_holds_no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        """The configuration is written to the run directory and to MLflow."""
        for name, text in value.items():
            if is_named_like_a_secret(name) or holds_credentials(text):
                raise ValueError(
                    f"cluster.environment: {name} looks like a secret, and the configuration is written to files; "
                    f"set it in the environment that the cluster's nodes are started with"
                )
        return value

    @model_validator(mode="after")
    def min_is_not_more(self) -> Self:
        """A range."""
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers={self.min_workers} is more than num_workers={self.num_workers}")
        return self


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = True
    """Whether to log to MLflow; the run directory holds every metric either way."""
    uri: Location | None = None
    """Tracking server or store; default: the environment's MLFLOW_TRACKING_URI, else SQLite in `mlflow.db`
    beside the run directory. Credentials belong into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or with
    the whole URI into MLFLOW_TRACKING_URI."""
    experiment: str | None = None
    """Experiment name; default: the name of the run directory."""
    system_metrics: bool = True
    """Also log load and memory of the machine that drives the run."""
    max_model_gib: float = Field(1.0, ge=0, le=1_000_000)
    """Models of strategies up to this size are logged as MLflow models, larger ones only named; 0 logs none."""


class RunConfig(Section):
    """A whole run: prepare, train the strategies, evaluate, compare."""

    run_dir: LocalPath
    """Folder for everything the run writes; shared storage on a cluster."""
    seed: Seed = 0
    """Seed of data order and of an embedded model's weights."""
    model: ModelConfig
    """The base model."""
    data: DataConfig
    """Training and test data."""
    contract: ResponseContract = ResponseContract()
    """Segments of a response and which of them are key."""
    prompt: PromptConfig = PromptConfig()
    """How a prompt is written."""
    strategies: tuple[PresetName | StrategyConfig, ...] = ("sft", "sft-tag", "key-tag", "sftkey-tag")
    """Presets by name, and strategies of your own."""
    optimization: OptimizationConfig = OptimizationConfig()
    """Optimisation of every stage, unless it overrides."""
    key_stage: KeyStageConfig = KeyStageConfig()
    """The preset key stage: loss tokens, and what it does differently when it continues from another stage."""
    training: TrainingConfig = TrainingConfig()
    """How stages run."""
    validation: ValidationConfig = ValidationConfig()
    """What is watched on held-out examples."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the work runs."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are tested."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""

    @property
    def most_workers(self) -> int:
        """Workers that run at a time, of training or of evaluation."""
        return max(self.cluster.num_workers, self.num_evaluation_workers)

    @property
    def evaluation_gpus(self) -> int:
        """Accelerators of a generation actor."""
        return self.evaluation.gpus_per_model or self.cluster.gpus_per_worker

    @property
    def num_evaluation_workers(self) -> int:
        """Generation actors; by default as many as the training's accelerators can hold."""
        return self.evaluation.num_workers or max(1, self.cluster.num_workers // max(1, self.evaluation_gpus))

    @model_validator(mode="after")
    def longest_example_fits_a_micro_batch(self) -> Self:
        """An example is never split over rows."""
        if self.data.max_length_tokens > self.training.micro_batch_tokens:
            raise ValueError(
                f"data.max_length_tokens={self.data.max_length_tokens} exceeds "
                f"training.micro_batch_tokens={self.training.micro_batch_tokens}: raise the latter or lower the "
                f"former"
            )
        return self

    @model_validator(mode="after")
    def strategy_names_are_unique(self) -> Self:
        """Folders and rows are named by strategy."""
        names = [s if isinstance(s, str) else s.name for s in self.strategies]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"strategies must be named once each and at least one is needed, got {names}")
        return self

    @model_validator(mode="after")
    def checks_name_key_segments(self) -> Self:
        """A check of a segment that is not compared would never run."""
        known = [segment.name for segment in self.contract.key_segments]
        unknown = sorted(set(self.evaluation.answer_checks) - set(known))
        if unknown:
            raise ValueError(f"evaluation.answer_checks: {unknown[0]!r} is no key segment; there are {known}")
        return self

    @model_validator(mode="after")
    def a_stopped_prefix_needs_packed_attention(self) -> Self:
        """It hands keys and values from one call to the next."""
        own = [strategy.stages for strategy in self.strategies if isinstance(strategy, StrategyConfig)]
        if self.key_stage.stop_gradient_prefix or any(stage.stop_gradient_prefix for stage in chain(*own)):
            if self.model.attention not in ("packed", "packed_sdpa"):
                raise ValueError("stop_gradient_prefix needs model.attention=packed")
            if self.training.gradient_checkpointing:
                raise ValueError("stop_gradient_prefix and training.gradient_checkpointing do not go together")
        return self

    @model_validator(mode="after")
    def new_tokens_are_trained(self) -> Self:
        """Adapters leave the embeddings as they are."""
        if self.contract.special_token_tags and self.training.lora is not None:
            raise ValueError(
                "contract.special_token_tags=true and training.lora do not go together: adapters leave the embeddings "
                "frozen, so that the rows of the new tokens would not be trained; set training.lora=null, or "
                "contract.special_token_tags=false, which writes tags as text"
            )
        return self

    @model_validator(mode="after")
    def secondary_partitions_divide_the_ranks(self) -> Self:
        """DeepSpeed makes groups of so many neighbours."""
        ranks, neighbours = self.cluster.num_workers, self.training.zero.secondary_partition_ranks
        if ranks % neighbours:
            raise ValueError(
                f"training.zero.secondary_partition_ranks={neighbours} must divide cluster.num_workers={ranks}"
            )
        return self

    @model_validator(mode="after")
    def models_lie_on_accelerators_where_there_are_some(self) -> Self:
        """Accelerators that nobody may use."""
        if self.evaluation.gpus_per_model and not self.cluster.gpus_per_worker:
            raise ValueError("evaluation.gpus_per_model needs cluster.gpus_per_worker=1")
        return self

    @model_validator(mode="after")
    def flash_attention_needs_an_accelerator(self) -> Self:
        """FlashAttention has no CPU kernels."""
        if self.model.attention == "flash_attention_2" and self.cluster.gpus_per_worker == 0:
            raise ValueError("model.attention=flash_attention_2 needs cluster.gpus_per_worker=1; on CPU use packed")
        if self.model.attention == "flash_attention_2" and self.training.precision == "float32":
            raise ValueError("model.attention=flash_attention_2 computes in bfloat16 only; float32 needs packed")
        return self
