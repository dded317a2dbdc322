"""Where on a cluster an actor runs. This module is light, because actors import it."""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftkey_dist.config.secrets import is_loopback


def place_that_reaches(url: str) -> dict[str, object]:
    """Ray options of an actor that asks a server: it runs on this node if the server listens on loopback here."""
    if not is_loopback(url):
        return {}
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
