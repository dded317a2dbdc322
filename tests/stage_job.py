"""Jobs of stages, with a default for everything that a test does not care about."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.strategy import Stage
from sftkey_dist.training.job import StageJob


def make_stage_job(
    stage_dir: Path,
    model_dir: Path,
    store_dir: Path,
    weights: Sequence[float],
    *,
    optimization: OptimizationConfig | None = None,
    stop_gradient_prefix: bool = False,
    training: TrainingConfig | None = None,
    **others: Any,
) -> StageJob:
    """A stage in float32 over a store, with checkpoints in its folder; ``others`` are keys of the job."""
    stage = Stage("stage", tuple(weights), optimization or OptimizationConfig(), stop_gradient_prefix)
    defaults = {
        "checkpoints": str(stage_dir / "checkpoints"),
        "seed": 5,
        "training": training or TrainingConfig(),
        "attention": "packed",
        "trust_remote_code": False,
        "precision": "float32",
        "end_of_turn_id": 7,
    }
    places = {"stage_dir": stage_dir, "model_dir": model_dir, "store_dir": store_dir}
    return StageJob.model_validate(defaults | places | {"stage": stage} | others)


def with_optimization(job: StageJob, **changes: Any) -> StageJob:
    """The same job with other keys of its optimization."""
    optimization = job.stage.optimization.model_copy(update=changes)
    return job.model_copy(update={"stage": replace(job.stage, optimization=optimization)})
