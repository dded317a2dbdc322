"""Actors that generate on the cluster of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from sftkey_dist.cluster.connection import connected, wait_for_room
from sftkey_dist.config.run import RunConfig
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool, num_actors


@contextmanager
def generation_pool(config: RunConfig) -> Iterator[EvaluationPool]:
    """Actors on the run's cluster that generate as the evaluation does."""
    with connected(config.cluster, config.most_workers):
        number = num_actors(config.evaluation, room_for_actors(config))
        with EvaluationPool(config.cluster, config.evaluation, number) as pool:
            yield pool


def room_for_actors(config: RunConfig) -> int:
    """Number of actors that the cluster has room for, since nodes may have been lost during training.

    Unless `evaluation.num_workers` asks for a number, one is enough: several accelerators of an actor must be on one
    node, which may leave some of each node over.
    """
    cluster = config.cluster
    if config.evaluation.num_workers is None:
        cluster = cluster.model_copy(update={"min_workers": 1})
    return wait_for_room(cluster, config.num_evaluation_workers, config.evaluation_gpus)
