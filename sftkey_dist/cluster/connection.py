"""Connects to a Ray cluster: a running one, or a private one on this machine for the duration of a command."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftkey_dist.cluster.gate import NamedCluster, named_cluster, refusal_of
from sftkey_dist.cluster.host import host_ahead, require_memory
from sftkey_dist.cluster.private import private_cluster
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.secrets import is_loopback, without_credentials
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError
from sftkey_dist.interrupts import handlers_kept, interruptible
from sftkey_dist.machine import usable_cores
from sftkey_dist.models.accelerator import Device, node_devices

_POLL_SECONDS = 1.0
_MAX_SECONDS_TO_ANSWER = 20.0
_MAX_SECONDS_TO_LIST = 90.0  # nvidia-smi may take 60

_WORDS = {"CPU": "CPU cores", "GPU": "accelerators"}

_REQUESTED = threading.Event()
"""Whether this process has asked an autoscaler for nodes."""


@contextmanager
def connected(cluster: ClusterConfig, num_workers: int) -> Iterator[None]:
    """Connect to ``cluster.address`` or RAY_ADDRESS, or start a private cluster that listens on loopback only.

    A nested block keeps the connection of the outer one.

    Args:
        cluster: address of the cluster, and the resources of a worker.
        num_workers: maximum number of workers that run at the same time, in training or in evaluation.

    Raises:
        ConfigError: no cluster answers at the address, it does not require a token, or it has too few CPUs or GPUs for
            the workers.
    """
    if ray.is_initialized():
        yield
        return
    named = named_cluster(cluster)
    for name, level in (("ray", logging.WARNING), ("ray.train", logging.WARNING), ("ray.data", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    with ExitStack() as stack:
        with handlers_kept():
            if named is None:
                num_cpus = num_workers * cluster.cpus_per_worker
                if host_ahead(num_cpus) is None:  # it was checked before that one was started
                    require_memory(num_workers)
                stack.enter_context(private_cluster(num_cpus))
            else:
                stack.enter_context(_joined(named, cluster))
        wait_for_room(cluster, num_workers)
        yield


def lies_on_loopback() -> bool:
    """Whether all nodes of the connected cluster are on this machine and listen on loopback only."""
    return all(is_loopback(node["NodeManagerAddress"]) for node in ray.nodes())


def devices_of_nodes() -> list[Device]:
    """The accelerators of the nodes that answer in time, as their drivers describe them."""
    look = ray.remote(node_devices)
    asked = [
        look.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    if not asked:
        return []
    answered, _ = interruptible(ray.wait, asked, num_returns=len(asked), timeout=_MAX_SECONDS_TO_LIST)
    return [device for devices in interruptible(ray.get, answered) for device in devices]


def wait_for_room(cluster: ClusterConfig, wanted: int, num_gpus: int | None = None) -> int:
    """Wait for nodes with room for all workers, up to the configured time.

    Args:
        cluster: resources of a worker, maximum waiting time, and minimum number of workers.
        wanted: desired number of workers.
        num_gpus: accelerators per worker. Default: `cluster.gpus_per_worker`.

    Returns:
        The number of workers that there is room for, at most ``wanted``.

    Raises:
        ConfigError: there is room for fewer workers than the minimum.
    """
    least = min(wanted, cluster.min_workers or wanted)
    needs_of_each = _needs_of_a_worker(cluster, num_gpus)
    if _room_for(needs_of_each) < wanted and cluster.wait_for_nodes_seconds:
        _wait_for_nodes(needs_of_each, wanted, cluster.wait_for_nodes_seconds)
    room = _room_for(needs_of_each)
    if room < least:
        needs = " and ".join(f"{amount} {name}{'s'[: amount != 1]}" for name, amount in needs_of_each.items())
        nodes = usable_nodes()
        if needs_of_each.get("GPU") and not any(node["Resources"].get("GPU") for node in nodes):
            raise ConfigError(
                "cluster.gpus_per_worker=1, but Ray sees no accelerator on any node; set cluster.gpus_per_worker=0 to "
                "train on CPU cores, or start Ray where the accelerators are"
            )
        raise ConfigError(
            f"{least} workers with {needs} each are needed, the cluster has room for {room} on "
            f"{len(nodes)} nodes: add nodes, lower cluster.num_workers, evaluation.num_workers, "
            f"cluster.cpus_per_worker, cluster.gpus_per_worker or evaluation.gpus_per_model, wait for nodes with "
            f"cluster.wait_for_nodes_seconds, or allow stages to continue with fewer ranks with cluster.min_workers"
        )
    return min(room, wanted)


def idle_in_words(cluster: ClusterConfig) -> str:
    """What the connected cluster has and training does not use, with the keys that use it; "" if there is nothing.

    Idle cores are named on this machine alone, because those of a cluster may be meant for others.
    """
    if cluster.gpus_per_worker:
        return ""
    accelerators = int(sum(node["Resources"].get("GPU", 0) for node in usable_nodes()))
    if accelerators:
        return (
            f"training uses none of the {accelerators} accelerators: set cluster.num_workers={accelerators} "
            f"cluster.gpus_per_worker=1"
        )
    used, cores = cluster.num_workers * cluster.cpus_per_worker, usable_cores()
    if named_cluster(cluster) is None and cores >= 2 * used:
        return (
            f"training uses {used} of {cores} CPU cores: set cluster.cpus_per_worker={cores // cluster.num_workers} to "
            f"compute with all of them"
        )
    return ""


def room_for(cluster: ClusterConfig, num_gpus: int | None = None) -> int:
    """Number of workers that the nodes have room for. A worker needs all its resources on one node.

    Args:
        cluster: resources of a worker.
        num_gpus: accelerators per worker. Default: `cluster.gpus_per_worker`.
    """
    return _room_for(_needs_of_a_worker(cluster, num_gpus))


def most_gpus_of_a_node() -> int:
    """Number of accelerators of the node that has the most."""
    return max((int(node["Resources"].get("GPU", 0)) for node in usable_nodes()), default=0)


def host_memory_gib() -> float:
    """Memory of all nodes together, in GiB, as Ray found it when they started."""
    kinds = ("memory", "object_store_memory")
    return sum(float(node["Resources"].get(kind, 0)) for node in usable_nodes() for kind in kinds) / 2**30


def _room_for(needs: dict[str, int]) -> int:
    return sum(
        min(int(node["Resources"].get(name, 0) // amount) for name, amount in needs.items()) for node in usable_nodes()
    )


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that will be removed soon, such as preempted spot instances. They get no workers."""
    # Ray has no public API for this. Ray Train (train/v2/_internal/execution/preemption.py) makes the same call.
    return frozenset(ray._private.state.state.get_draining_nodes())


def _needs_of_a_worker(cluster: ClusterConfig, num_gpus: int | None = None) -> dict[str, int]:
    needs = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker if num_gpus is None else num_gpus}
    return {name: amount for name, amount in needs.items() if amount}


def usable_nodes() -> list[dict[str, Any]]:
    """The nodes that are alive and will not be removed soon, as `ray.nodes` describes them."""
    draining = draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]


def in_use_in_words(cluster: ClusterConfig, num_workers: int) -> str:
    """What workers wait for that other work has reserved; "" if they do not wait for that."""
    if not any(group["state"] == "PENDING" for group in placement_group_table().values()):
        return ""
    total, free = ray.cluster_resources(), ray.available_resources()
    short = [
        f"{total.get(name, 0) - free.get(name, 0):g} of {total.get(name, 0):g} {_WORDS[name]}"
        for name, amount in _needs_of_a_worker(cluster).items()
        if free.get(name, 0) < amount * num_workers
    ]
    return f"other work uses {' and '.join(short)}; the workers start when enough are free" if short else ""


@contextmanager
def _joined(named: NamedCluster, cluster: ClusterConfig) -> Iterator[None]:
    address = _resolved(named)
    if not cluster.allow_unauthenticated:
        named.require_token("set cluster.allow_unauthenticated=true", address)
    _require_answer(named, address, cluster.wait_for_nodes_seconds)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise _no_cluster(named, address, str(error)) from error
    try:
        yield
    finally:
        _release_nodes()
        ray.shutdown()


def _resolved(named: NamedCluster) -> str:
    """The address as `host:port`. `auto` is the cluster of this machine."""
    if "://" in named.address:
        raise ConfigError(
            f"{named.source}={named.address}: give the host and port of a cluster, such as head:6379, or auto; the URL "
            f"of a dashboard is for jobs: sftkey submit --address"
        )
    try:
        return str(canonicalize_bootstrap_address(named.address))
    except (ConnectionError, ValueError, OSError) as error:
        raise _no_cluster(named, named.address, str(error)) from error


def _require_answer(named: NamedCluster, address: str, most_seconds_to_start: float) -> None:
    """Check that a cluster answers. Ray itself would try for minutes, in a call that signals cannot interrupt.

    Args:
        named: the cluster.
        address: its address, as `host:port`.
        most_seconds_to_start: how long to try again while nothing listens there.

    Raises:
        ConfigError: nothing answers in time, it is not a Ray cluster, or it requires another token.
    """
    deadline, is_waiting = time.monotonic() + most_seconds_to_start, False
    while refusal := refusal_of(address):
        if time.monotonic() >= deadline or not isinstance(refusal, ConnectionError | TimeoutError):
            raise _no_cluster(named, address, str(refusal)) from refusal
        if not is_waiting:
            console.print(f"waiting up to {most_seconds_to_start:g} s for the cluster at {address}", markup=False)
        is_waiting = True
        time.sleep(_POLL_SECONDS)
    command = [sys.executable, "-m", "sftkey_dist.cluster.probe", address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_MAX_SECONDS_TO_ANSWER)
    except subprocess.TimeoutExpired as error:
        problem = f"the port is open, but nothing answered within {_MAX_SECONDS_TO_ANSWER:g} s"
        raise _no_cluster(named, address, problem) from error
    problem = asked.stdout if asked.returncode == 0 else f"Ray's client exited with {asked.returncode}: {asked.stderr}"
    if problem:
        raise _no_cluster(named, address, problem)


def _no_cluster(named: NamedCluster, address: str, problem: str) -> ConfigError:
    where = f", which is {address}" if named.address == "auto" else ""
    reason = without_credentials(" ".join(problem.split()))[:200]
    way_out = "unset it" if named.source == "RAY_ADDRESS" else "leave it out"
    return ConfigError(
        f"{named.source}={named.address}{where}: no Ray cluster answers there ({reason}); start it, correct the "
        f"address, or {way_out} for a private cluster"
    )


def _wait_for_nodes(needs: dict[str, int], num_workers: int, most_seconds: float) -> None:
    """Request the nodes from an autoscaler, and wait until they have joined or the time is over."""
    console.print(f"waiting up to {most_seconds:g} s for nodes", markup=False)
    deadline = time.monotonic() + most_seconds
    while _room_for(needs) < num_workers and time.monotonic() < deadline:
        _REQUESTED.set()
        request_resources(bundles=[needs] * num_workers)  # each time, because another command may replace it
        time.sleep(_POLL_SECONDS)


def _release_nodes() -> None:
    """Withdraw a request of this process, which would outlive its job, so that nodes would be kept for nobody."""
    if _REQUESTED.is_set():
        _REQUESTED.clear()
        with suppress(Exception):  # of a cluster that is gone
            request_resources(bundles=[])
