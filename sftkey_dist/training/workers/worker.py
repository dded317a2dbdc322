"""The function Ray Train runs on every rank.

The driver imports this module to name the function, so DeepSpeed and the loop are imported inside it: loading them
takes the driver as long as starting the cluster. Workers have loaded them already (`process_group`).
"""

from typing import Any

import ray

from sftkey_dist.training.job import StageJob

Queue = Any  # the handle of the actor that is a TaskQueue


def train_worker(settings: dict[str, Any]) -> None:
    """Train the stages that the queue has for the group, until it has no more.

    Args:
        settings: ``queue`` and ``num_threads``.
    """
    from torch import distributed

    from sftkey_dist.training.checkpoint import CheckpointKeeper
    from sftkey_dist.training.engine.factory import join_process_group
    from sftkey_dist.training.loop import train_stage
    from sftkey_dist.training.workers.threads import limit_threads

    queue, number = settings["queue"], 0
    ray.get(queue.join.remote(ray.get_runtime_context().get_node_id()))
    limit_threads(settings["num_threads"])
    join_process_group()
    while (task := ray.get(queue.task.remote(number))) is not None:
        job, attempt = StageJob.model_validate(task[0]), task[1]
        checkpoints = CheckpointKeeper.of_stage(
            job, rank=distributed.get_rank(), world_size=distributed.get_world_size(), attempt=attempt
        )
        is_finished = train_stage(job, checkpoints)
        ray.get(queue.report.remote(number, is_finished))
        number += 1
