"""A whole run: every key, with its meaning, unit and default."""

from itertools import chain
from typing import Self

from pydantic import model_validator

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.data import DataConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.model import ModelConfig
from sftkey_dist.config.paths import LocalPath
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.section import Section, Seed
from sftkey_dist.config.strategy import KeyStageConfig, OptimizationConfig, PresetName, StrategyConfig
from sftkey_dist.config.tracking import TrackingConfig
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.config.validation import ValidationConfig
from sftkey_dist.contract import ResponseContract


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
