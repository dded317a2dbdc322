"""The configuration of a whole run."""

from itertools import chain
from typing import Self

from pydantic import model_validator

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.data import DataConfig
from sftkey_dist.config.evaluation import EvaluationConfig, LocalJudgeConfig
from sftkey_dist.config.model import PACKED_ATTENTION, ModelConfig
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
    """Folder for everything that the run writes. On a cluster it must lie on shared storage."""
    seed: Seed = 0
    """Seed of the data order and of the initial weights of an embedded model."""
    model: ModelConfig
    """The base model."""
    data: DataConfig
    """Training and test data."""
    contract: ResponseContract = ResponseContract()
    """Segments of a response, and which of them are key segments."""
    prompt: PromptConfig = PromptConfig()
    """How prompts are written."""
    strategies: tuple[PresetName | StrategyConfig, ...] = ("sft", "sft-tag", "key-tag", "sftkey-tag")
    """Presets by name, and custom strategies."""
    optimization: OptimizationConfig = OptimizationConfig()
    """Optimisation of every stage; a stage may override single keys."""
    key_stage: KeyStageConfig = KeyStageConfig()
    """The preset key stage: its loss tokens, and what it overrides when it continues from another stage."""
    training: TrainingConfig = TrainingConfig()
    """How stages are executed."""
    validation: ValidationConfig = ValidationConfig()
    """What is measured on held-out examples."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the work runs."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are evaluated."""
    tracking: TrackingConfig = TrackingConfig()
    """How the run is tracked with MLflow and others."""

    @property
    def most_workers(self) -> int:
        """Maximum number of workers that run at the same time, in training or in evaluation."""
        return max(self.cluster.num_workers, self.num_evaluation_workers)

    @property
    def strategy_names(self) -> list[str]:
        """Names of the strategies, in order."""
        return [strategy if isinstance(strategy, str) else strategy.name for strategy in self.strategies]

    @property
    def evaluation_gpus(self) -> int:
        """Accelerators of each generation actor."""
        return self.evaluation.gpus_per_model or self.cluster.gpus_per_worker

    @property
    def num_evaluation_workers(self) -> int:
        """Number of generation actors; by default as many as fit on the accelerators of the training."""
        return self.evaluation.num_workers or max(1, self.cluster.num_workers // max(1, self.evaluation_gpus))

    @model_validator(mode="after")
    def longest_example_fits_a_micro_batch(self) -> Self:
        """An example is never split over several rows."""
        if self.data.max_length_tokens > self.training.micro_batch_tokens:
            raise ValueError(
                f"data.max_length_tokens={self.data.max_length_tokens} exceeds "
                f"training.micro_batch_tokens={self.training.micro_batch_tokens}: raise the latter or lower the "
                f"former"
            )
        return self

    @model_validator(mode="after")
    def strategy_names_are_unique(self) -> Self:
        """Folders and table rows are named after strategies."""
        names = self.strategy_names
        if not names or len(set(names)) < len(names):
            raise ValueError(f"strategies needs at least one entry, and each name must occur once; got {names}")
        return self

    @model_validator(mode="after")
    def checks_name_key_segments(self) -> Self:
        """Only key segments are compared, so a check of any other segment would never run."""
        known = [segment.name for segment in self.contract.key_segments]
        unknown = sorted(set(self.evaluation.answer_checks) - set(known))
        if unknown:
            raise ValueError(
                f"evaluation.answer_checks: {unknown[0]!r} is not a key segment; the key segments are {known}"
            )
        return self

    @model_validator(mode="after")
    def swapped_reasoning_needs_reasoning(self) -> Self:
        """Only what stands before the first key segment can be swapped."""
        if self.evaluation.swapped_reasoning and not self.contract.has_text_before_key:
            raise ValueError(
                "evaluation.swapped_reasoning: the contract has no segment before its first key segment, so there is "
                "no reasoning to swap; set evaluation.swapped_reasoning=0"
            )
        return self

    @model_validator(mode="after")
    def servers_keep_special_tokens(self) -> Self:
        """Servers remove special tokens unless a request asks for them, as those for completions do here."""
        server = self.evaluation.endpoint
        if self.contract.special_token_tags and server is not None and server.api == "chat":
            raise ValueError(
                "contract.special_token_tags=true and evaluation.endpoint.api=chat cannot be combined: servers would "
                "remove the tags, and are asked to keep them for completions alone; set "
                "evaluation.endpoint.api=completions"
            )
        return self

    @model_validator(mode="after")
    def a_stopped_prefix_needs_packed_attention(self) -> Self:
        """The prefix passes its keys and values to the answers, which only packed attention supports."""
        own = [strategy.stages for strategy in self.strategies if isinstance(strategy, StrategyConfig)]
        if self.key_stage.stop_gradient_prefix or any(stage.stop_gradient_prefix for stage in chain(*own)):
            if self.model.attention not in PACKED_ATTENTION:
                raise ValueError("stop_gradient_prefix needs model.attention=packed or packed_sdpa")
            if self.training.gradient_checkpointing:
                raise ValueError(
                    "stop_gradient_prefix and training.gradient_checkpointing cannot be combined; turn one of them off"
                )
            if self.training.sequence_parallel_ranks > 1:
                raise ValueError(
                    "stop_gradient_prefix and training.sequence_parallel_ranks cannot be combined; turn one of them off"
                )
        return self

    @model_validator(mode="after")
    def new_tokens_are_trained(self) -> Self:
        """LoRA adapters leave the embeddings frozen."""
        if self.contract.special_token_tags and self.training.lora is not None:
            raise ValueError(
                "contract.special_token_tags=true and training.lora cannot be combined: adapters leave the embeddings "
                "frozen, so the embeddings of the new tokens would not be trained; set training.lora=null, or "
                "contract.special_token_tags=false, which writes tags as text"
            )
        return self

    @model_validator(mode="after")
    def muon_has_what_it_updates(self) -> Self:
        """DeepSpeed's Muon gathers the gradient and the momentum of a whole matrix, and keeps them as it exchanges."""
        excluded = {
            "training.lora": self.training.lora is not None,
            "training.zero.offload=nvme": self.training.zero.offload == "nvme",
            "training.zero.reduce_precision=bfloat16": self.training.zero.reduce_precision == "bfloat16",
        }
        for setting in (key for key, is_set in excluded.items() if is_set and self.optimization.muon is not None):
            raise ValueError(f"optimization.muon and {setting} cannot be combined; remove one of them")
        return self

    @model_validator(mode="after")
    def groups_divide_the_ranks(self) -> Self:
        """The ranks are divided into groups of one size."""
        for key, size in self.training.group_sizes.items():
            if self.cluster.num_workers % size:
                raise ValueError(f"{key}={size} must divide cluster.num_workers={self.cluster.num_workers}")
        return self

    @model_validator(mode="after")
    def parts_of_rows_need_packed_attention(self) -> Self:
        """Only packed attention exchanges tokens for heads."""
        if self.training.sequence_parallel_ranks > 1 and self.model.attention not in PACKED_ATTENTION:
            raise ValueError("training.sequence_parallel_ranks needs model.attention=packed or packed_sdpa")
        return self

    @model_validator(mode="after")
    def models_lie_on_accelerators_where_there_are_some(self) -> Self:
        """Models can only be placed on accelerators if workers have them."""
        if self.cluster.gpus_per_worker:
            return self
        if self.evaluation.gpus_per_model:
            raise ValueError("evaluation.gpus_per_model needs cluster.gpus_per_worker=1")
        judges = self.evaluation.judge.judges if self.evaluation.judge is not None else ()
        if any(isinstance(judge, LocalJudgeConfig) and judge.gpus_per_model for judge in judges):
            raise ValueError("gpus_per_model of a judge needs cluster.gpus_per_worker=1")
        return self

    @model_validator(mode="after")
    def flash_attention_needs_an_accelerator(self) -> Self:
        """FlashAttention has no CPU kernels."""
        if self.model.attention == "flash_attention_2" and self.cluster.gpus_per_worker == 0:
            raise ValueError("model.attention=flash_attention_2 needs cluster.gpus_per_worker=1; on CPU use packed")
        if self.model.attention == "flash_attention_2" and self.training.precision == "float32":
            raise ValueError("model.attention=flash_attention_2 computes in bfloat16 only; float32 needs packed")
        return self
