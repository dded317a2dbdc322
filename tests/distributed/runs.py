"""Whole runs on plain processes: what a run through Ray is compared with."""

from sftkey_dist.config.run import RunConfig
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.job import StageJob
from tests.distributed.harness import run_ranks, train


def train_without_ray(config: RunConfig, world_size: int = 2) -> list[StageDir]:
    """All stages of a run with one strategy, on plain processes."""
    jobs = jobs_of(config)
    run_ranks(world_size, train, jobs)
    return [StageDir(job.stage_dir) for job in jobs]


def jobs_of(config: RunConfig) -> list[StageJob]:
    """All stages of a run with one strategy."""
    (strategy,) = plan_run(config, prepare(config)).strategies
    return [stage.job for stage in strategy.stages]
