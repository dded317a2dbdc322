"""What a worker is told: one stage, as plain values that travel to any machine."""

from pathlib import Path
from typing import Any, Literal

from sftkey_dist.config.model import Attention
from sftkey_dist.config.section import Section
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.config.validation import GuardConfig, ValidationConfig
from sftkey_dist.evaluation.assessment import Assessment


class GuardJob(Section):
    """What a guarded stage generates and how that is judged."""

    settings: GuardConfig
    """When, how many, what follows."""
    assessment: Assessment
    """As in the evaluation of the finished model."""


_CHANGES_NOTHING: dict[str, Any] = {
    "attention": True,
    "trust_remote_code": True,
    "optimization": {"num_epochs": True, "max_steps": True},  # the number of steps says it
    "training": {
        "precision": True,  # the resolved one counts, and so of the export's
        "export_precision": True,
        "keep_masters": True,
        "micro_batch_tokens": True,
        "zero": {
            "max_gathered_gib": True,
            "reduce_bucket_elements": True,
            "sub_group_elements": True,
            "offload": True,
            "offload_weights": True,
            "nvme_path": True,
            "secondary_partition_ranks": True,
        },
        "gradient_checkpointing": True,
        "logit_chunk_positions": True,
        "checkpoint_every_steps": True,
        "checkpoint_storage": True,
        "segment_metrics_every_steps": True,
        "collectives_every_steps": True,
        "max_failures": True,
        "collective_timeout_seconds": True,
        "storage_timeout_seconds": True,
    },
    "validation": {"every_steps": True, "guard": True},
    "guard": {
        "assessment": {
            "form": True,  # the store says it, and how prompts are written
            "contract": True,  # what its form uses stands beside
            "prompt": True,
            "trust_remote_code": True,
            "settings": {
                "backend": True,
                "endpoint": True,
                "sampling": True,  # the guard is greedy
                "batch_size": True,
                "gpus_per_model": True,
                "limit": True,
                "answer_check": True,  # the checks that are chosen stand beside
                "answer_checks": True,
                "judge": True,
                "num_workers": True,
            },
        }
    },
}
"""Keys on which a stage's result does not depend, float error aside; a test varies every other one."""


class StageSettings(Section):
    """What decides the result of a stage, beside its model and its data, and how it is computed."""

    weights: tuple[float, ...]
    """Loss weight of each segment id."""
    seed: int
    """Seed of the data order and of dropout."""
    optimization: OptimizationConfig
    """Optimisation of the stage."""
    training: TrainingConfig
    """How stages run."""
    validation: ValidationConfig = ValidationConfig()
    """Held-out examples."""
    guard: GuardJob | None = None
    """For a stage that continues from another and leaves part of the response untrained."""
    stop_gradient_prefix: bool = False
    """See the stage's key of that name."""
    attention: Attention
    """See `model.attention`."""
    trust_remote_code: bool
    """See `model.trust_remote_code`."""
    precision: Literal["float32", "bfloat16"]
    """Compute precision, resolved."""
    end_of_turn_id: int
    """Token that ends a response; generation from the exported model stops there."""

    def inputs(self, num_steps: int) -> dict[str, Any]:
        """What the result depends on: every key but those that are known to change nothing.

        Args:
            num_steps: optimizer steps of the stage.
        """
        decides = self.guard is not None and self.guard.settings.decides
        settings = self if decides else self.model_copy(update={"guard": None})
        resolved: dict[str, Any] = {"num_steps": num_steps, "export_precision": self.export_precision}
        if settings.guard is not None:
            assessment = settings.guard.assessment
            resolved["guard_contract"] = assessment.contract.of_form(assessment.form)
        return settings.model_dump(mode="json", exclude=_CHANGES_NOTHING) | resolved

    @property
    def export_precision(self) -> Literal["float32", "bfloat16"]:
        """Of the model that the stage ends in."""
        return "float32" if self.training.export_precision == "float32" else self.precision

    @classmethod
    def resolve_precision(cls, training: TrainingConfig, gpus_per_worker: int) -> Literal["float32", "bfloat16"]:
        """`auto` is bfloat16 on accelerators; on CPUs without matrix units float32 is faster."""
        if training.precision != "auto":
            return training.precision
        return "bfloat16" if gpus_per_worker else "float32"


class StageJob(StageSettings):
    """One stage of training, with its places."""

    model_dir: Path
    """Folder of the model to start from."""
    masters_dir: Path | None = None
    """Float32 weights that the folder's are rounded from; see `training/masters.py`."""
    hands_on_masters: bool = False
    """Whether a stage that continues from this one needs its float32 weights."""
    store_dir: Path
    """Encoded store to train on."""
    other_stores: tuple[Path, ...] = ()
    """Of the run's other forms of the data: what is held out of one is held out of all."""
    stage_dir: Path
    """Folder for everything the stage writes but, where they lie in an object store, checkpoints."""
    checkpoints: str
    """Folder or URI of the stage's checkpoints."""
