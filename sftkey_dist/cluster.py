"""A Ray cluster to work on: a running one, or a private one on this machine for as long as it is needed."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftkey_dist.config.schema import ClusterConfig
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError

_SECONDS_BETWEEN_LOOKS = 1.0
_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # results pass through files; the object store carries small values only


@contextmanager
def connected(cluster: ClusterConfig, num_workers: int) -> Iterator[None]:
    """Connect to ``cluster.address`` or RAY_ADDRESS, or start a private local cluster bound to loopback.

    Nested in another such block, it keeps that one's connection.

    Args:
        cluster: where, and what a worker needs.
        num_workers: most workers at a time, of training or of evaluation.

    Raises:
        ConfigError: no cluster answers there, or it has too few CPUs or GPUs for the workers.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    for name, level in (("ray", logging.WARNING), ("ray.train", logging.WARNING), ("ray.data", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    if address is None:
        _start_private(num_workers * cluster.cpus_per_worker)
    else:
        _join(address)
    try:
        _require_resources(cluster, num_workers)
        yield
    finally:
        ray.shutdown()


def require_shared_storage(folder: Path) -> None:
    """Have every node of the connected cluster look for a file that this one writes.

    Raises:
        ConfigError: a node does not see it.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    look = ray.remote(_sees)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".sftkey-shared-") as probe:
        sees = {
            node["NodeManagerAddress"]: look.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(probe.name)
            for node in nodes
        }
        blind = [address for address, seen in sees.items() if not ray.get(seen)]
    if blind:
        raise ConfigError(
            f"{folder}: not on storage that all nodes share, {', '.join(blind)} cannot see it; set run_dir to a folder "
            f"on a shared file system"
        )


def _sees(file: str) -> bool:
    return Path(file).exists()


def _start_private(num_cpus: int) -> None:
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, num_cpus),
        object_store_memory=_OBJECT_STORE_BYTES,
        # Ray Train's controller asks the dashboard for the state of actors and floods the log without it.
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"cluster.address={address!r}: no Ray cluster answers there ({error})") from error


def _require_resources(cluster: ClusterConfig, num_workers: int) -> None:
    """An unsatisfiable request would wait forever."""
    if _lacking(cluster, num_workers) and cluster.wait_for_nodes_seconds:
        _wait_for_nodes(cluster, num_workers)
    lacking = _lacking(cluster, num_workers)
    if lacking:
        resource, amount, there = lacking
        raise ConfigError(
            f"{num_workers} workers need {amount} {resource}s, the cluster has {there:g}: add nodes, lower "
            f"cluster.num_workers, evaluation.num_workers or cluster.{resource.lower()}s_per_worker, or wait for nodes "
            f"with cluster.wait_for_nodes_seconds"
        )


def _wait_for_nodes(cluster: ClusterConfig, num_workers: int) -> None:
    """Ask for the nodes and wait until they are there, or long enough."""
    bundle = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    request_resources(bundles=[{name: amount for name, amount in bundle.items() if amount}] * num_workers)
    console.print(f"waiting up to {cluster.wait_for_nodes_seconds:g} s for nodes", markup=False)
    deadline = time.monotonic() + cluster.wait_for_nodes_seconds
    while _lacking(cluster, num_workers) and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _lacking(cluster: ClusterConfig, num_workers: int) -> tuple[str, int, float] | None:
    """A resource that there is too little of, how much is needed and how much there is."""
    available = ray.cluster_resources()
    needed = {"CPU": num_workers * cluster.cpus_per_worker, "GPU": num_workers * cluster.gpus_per_worker}
    for resource, amount in needed.items():
        if available.get(resource, 0) < amount:
            return resource, amount, available.get(resource, 0)
    return None
