"""What a worker is told: one stage, as plain values that travel to any machine."""

from pathlib import Path
from typing import Literal

from sftkey_dist.config.schema import Attention, OptimizationConfig
from sftkey_dist.config.section import Section
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.config.validation import GuardConfig, ValidationConfig
from sftkey_dist.evaluation.assess import Assessment


class GuardJob(Section):
    """What a guarded stage generates and how that is judged."""

    settings: GuardConfig
    """When, how many, what follows."""
    assessment: Assessment
    """As in the evaluation of the finished model."""


class StageJob(Section):
    """One stage of training."""

    model_dir: Path
    """Folder of the model to start from."""
    masters_dir: Path | None = None
    """Float32 weights that the folder's are rounded from; see `training/masters.py`."""
    hands_on_masters: bool = False
    """Whether a stage that continues from this one needs its float32 weights."""
    store_dir: Path
    """Encoded store to train on."""
    stage_dir: Path
    """Folder for everything the stage writes but, where they lie in an object store, checkpoints."""
    checkpoints: str
    """Folder or URI of the stage's checkpoints."""
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
