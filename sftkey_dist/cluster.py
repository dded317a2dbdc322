"""A Ray cluster to work on: a running one, or a private one on this machine for as long as it is needed."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftkey_dist.config.schema import ClusterConfig
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError
from sftkey_dist.interrupts import handlers_kept
from sftkey_dist.models.accelerator import Device, node_devices

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
    with handlers_kept():
        if address is None:
            _start_private(num_workers * cluster.cpus_per_worker)
        else:
            _join(address)
    try:
        wait_for_room(cluster, num_workers)
        yield
    finally:
        ray.shutdown()


def require_shared_storage(folder: Path, read: Sequence[Path]) -> None:
    """Have every node of the connected cluster look for what this one writes and what they will read.

    Args:
        folder: written to by all.
        read: folders that must be on every node; their names say what is in them.

    Raises:
        ConfigError: a node does not see one.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    look = ray.remote(_lacking)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".sftkey-shared-") as probe:
        wanted = {probe.name: folder} | {str(path.absolute()): path for path in read}
        lacks = {
            node["NodeManagerAddress"]: look.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(list(wanted))
            for node in nodes
        }
        for address, lacking in lacks.items():
            for name in ray.get(lacking):
                raise ConfigError(
                    f"{wanted[name]}: not on storage that all nodes share, {address} cannot see it; set run_dir, "
                    f"data.store_dir and model.path to folders on a shared file system"
                )


def devices_of_nodes() -> list[Device]:
    """The accelerators of all nodes of the connected cluster that have some, as their drivers describe them."""
    look = ray.remote(node_devices)
    asked = [
        look.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    return [device for devices in ray.get(asked) for device in devices]


def _lacking(paths: list[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def wait_for_room(cluster: ClusterConfig, wanted: int, num_gpus: int | None = None) -> int:
    """Wait as long as the configuration says for nodes with room for all workers.

    Args:
        cluster: what a worker needs, how long to wait, and how many workers will do when no more nodes come.
        wanted: workers that there should be room for.
        num_gpus: accelerators of each, if not `cluster.gpus_per_worker`.

    Returns:
        How many there is room for, ``wanted`` at most.

    Raises:
        ConfigError: there are too few nodes.
    """
    least = min(wanted, cluster.min_workers or wanted)
    needs_of_each = _needs_of_a_worker(cluster, num_gpus)
    if _room_for(needs_of_each) < wanted and cluster.wait_for_nodes_seconds:
        _wait_for_nodes(needs_of_each, wanted, cluster.wait_for_nodes_seconds)
    room = _room_for(needs_of_each)
    if room < least:
        needs = " and ".join(f"{amount} {name}s" for name, amount in needs_of_each.items())
        raise ConfigError(
            f"{least} workers with {needs} each are needed, the cluster has room for {room} on "
            f"{len(_usable_nodes())} nodes: add nodes, lower cluster.num_workers, evaluation.num_workers, "
            f"cluster.cpus_per_worker, cluster.gpus_per_worker or evaluation.gpus_per_model, wait for nodes with "
            f"cluster.wait_for_nodes_seconds, or let stages go on with fewer ranks with cluster.min_workers"
        )
    return min(room, wanted)


def room_for(cluster: ClusterConfig) -> int:
    """Workers that the nodes have room for; a worker lies on one node."""
    return _room_for(_needs_of_a_worker(cluster))


def _room_for(needs: dict[str, int]) -> int:
    return sum(
        min(int(node["Resources"].get(name, 0) // amount) for name, amount in needs.items()) for node in _usable_nodes()
    )


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that are about to be taken away, as spot instances are; no worker is put there."""
    # Ray has no public name for it; Ray Train's own watcher (train/v2/_internal/execution/preemption.py) asks the same.
    return frozenset(ray._private.state.state.get_draining_nodes())


def _needs_of_a_worker(cluster: ClusterConfig, num_gpus: int | None = None) -> dict[str, int]:
    needs = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker if num_gpus is None else num_gpus}
    return {name: amount for name, amount in needs.items() if amount}


def _usable_nodes() -> list[dict[str, Any]]:
    draining = draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]


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


def _wait_for_nodes(needs: dict[str, int], num_workers: int, most_seconds: float) -> None:
    """Ask an autoscaler for the nodes and wait until they are there, or long enough."""
    request_resources(bundles=[needs] * num_workers)
    console.print(f"waiting up to {most_seconds:g} s for nodes", markup=False)
    deadline = time.monotonic() + most_seconds
    while _room_for(needs) < num_workers and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
