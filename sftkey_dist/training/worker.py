"""The function Ray Train runs on every rank.

The driver imports this module to name the function, so DeepSpeed and the loop are imported inside it: loading them
takes the driver as long as starting the cluster.
"""

from typing import Any

import ray.train

from sftkey_dist.training.job import StageJob


def train_worker(settings: dict[str, Any]) -> bool:
    """Run one stage on this rank.

    Args:
        settings: ``job``, a StageJob as plain values, ``num_threads`` and ``attempt``.

    Returns:
        Whether the stage is finished; not when it was asked to stop.
    """
    from sftkey_dist.training.checkpoint import CheckpointKeeper
    from sftkey_dist.training.engine import join_process_group, limit_threads
    from sftkey_dist.training.loop import train_stage

    job, context = StageJob.model_validate(settings["job"]), ray.train.get_context()
    limit_threads(settings["num_threads"])
    join_process_group()
    checkpoints = CheckpointKeeper.of_stage(
        job, rank=context.get_world_rank(), world_size=context.get_world_size(), attempt=settings["attempt"]
    )
    return train_stage(job, checkpoints)
