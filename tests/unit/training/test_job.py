"""A job reaches its workers as JSON, and is the same there."""

import json
from pathlib import Path

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.training.job import StageJob
from tests.stage_job import make_stage_job


def test_a_job_is_the_same_when_it_has_travelled_as_json():
    optimization = OptimizationConfig(betas=(0.8, 0.99), max_steps=3)
    job = make_stage_job(
        Path("stage"),
        Path("model"),
        Path("store"),
        (0.0, 0.5, 1.0),
        optimization=optimization,
        stop_gradient_prefix=True,
        other_stores=(Path("other"),),
    )
    arrived = StageJob.model_validate(json.loads(json.dumps(job.model_dump(mode="json"))))
    assert arrived == job
    assert arrived.stage == job.stage
    assert arrived.inputs(3) == job.inputs(3)
