"""What a worker is told: one stage, as plain values that can be sent to any machine."""

from pathlib import Path
from typing import Any, Literal

from sftkey_dist.config.answer_check import without_folders
from sftkey_dist.config.model import Attention
from sftkey_dist.config.section import Section
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.config.validation import GuardConfig, ValidationConfig
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.strategy import Stage


class GuardJob(Section):
    """What a guarded stage generates and how that is judged."""

    settings: GuardConfig
    """When the guard scores the model, on how many examples, and what follows from it."""
    assessment: EvaluationSettings
    """How outputs are checked, as in the evaluation of the finished model."""


_CHANGES_NOTHING: dict[str, Any] = {
    "attention": True,
    "trust_remote_code": True,
    "stage": {
        "name": True,
        "optimization": {"num_epochs": True, "max_steps": True},  # the number of steps says it
    },
    "training": {
        "precision": True,  # the resolved one counts, and so of the export's
        "export_precision": True,
        "keep_masters": True,
        "micro_batch_tokens": True,
        "sequence_parallel_ranks": True,
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
        "offload_activations": True,
        "mlp_chunk_tokens": True,
        "logit_chunk_positions": True,
        "checkpoint_every_steps": True,
        "checkpoint_storage": True,
        "segment_metrics_every_steps": True,
        "gradient_cosines_every_steps": True,
        "collectives_every_steps": True,
        "profile_steps": True,
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
                "guided": True,  # a guard has to see that the format is lost
                "capabilities": True,
                "swapped_reasoning": True,
            },
        }
    },
}
"""Keys on which a stage's result does not depend, float error aside; a test varies every other one."""
_ORDER = dict.fromkeys(("weights", "seed", "optimization", "training", "validation", "guard", "stop_gradient_prefix"))
"""Order in which the files of a run list the inputs, those of the stage among all others; a new key comes last."""

_NEWER = frozenset({"segment_groups", "objectives", "replay", "interpolate", "anchor", "data", "project_conflicts"})
"""Keys of a stage that are left out where they are empty, so that digests equal those from before they existed."""


class StageSettings(Section):
    """What decides the result of a stage, beside its model and its data, and how it is computed."""

    stage: Stage
    """Loss weights and optimization, as its strategy has them."""
    seed: int
    """Seed of the data order and of dropout."""
    training: TrainingConfig
    """How stages run."""
    validation: ValidationConfig = ValidationConfig()
    """Which examples are held out, and how often they are measured."""
    guard: GuardJob | None = None
    """Guard of a stage that continues from another and leaves part of the response untrained; None for no guard."""
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
        own: dict[str, Any] = without_folders(settings.model_dump(mode="json", exclude=_CHANGES_NOTHING))
        stage: dict[str, Any] = {key: value for key, value in own.pop("stage").items() if value or key not in _NEWER}
        return _ORDER | stage | own | resolved

    @property
    def export_precision(self) -> Literal["float32", "bfloat16"]:
        """Precision of the model that the stage ends in."""
        return "float32" if self.training.export_precision == "float32" else self.precision

    @classmethod
    def resolve_precision(cls, training: TrainingConfig, gpus_per_worker: int) -> Literal["float32", "bfloat16"]:
        """Compute precision: ``auto`` means bfloat16 on accelerators, and float32 on CPUs, where it is faster."""
        if training.precision != "auto":
            return training.precision
        return "bfloat16" if gpus_per_worker else "float32"


class StageJob(StageSettings):
    """One stage of training, with its places."""

    model_dir: Path
    """Folder of the model to start from."""
    masters_dir: Path | None = None
    """Float32 weights that the folder's are rounded from; see `training/weights/masters.py`."""
    hands_on_masters: bool = False
    """Whether a stage that continues from this one needs its float32 weights."""
    store_dir: Path
    """Encoded store to train on."""
    other_stores: tuple[Path, ...] = ()
    """Stores of the run's other forms of the data: what is held out of one is held out of all."""
    stage_dir: Path
    """Folder for everything the stage writes but, where they lie in an object store, checkpoints."""
    checkpoints: str
    """Folder or URI of the stage's checkpoints."""
