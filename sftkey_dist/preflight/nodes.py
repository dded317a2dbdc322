"""Asks the nodes of the connected cluster, all at the same time and each for a limited time."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftkey_dist.cluster.connection import usable_nodes
from sftkey_dist.cluster.ray_errors import in_one_line
from sftkey_dist.files import make_folder, remove_tree
from sftkey_dist.interrupts import interruptible
from sftkey_dist.preflight.probe import Probe
from sftkey_dist.preflight.records import Clock, Exchange, NodeCheck, NodeGroup

MAX_SECONDS = 18.0
"""Time in which a node must have answered everything, once it has started a process."""
MAX_SECONDS_TO_START = 60.0
"""Time to start a process, which loads Ray's worker and may have to read it from slow storage."""
MAX_SECONDS_TO_EXCHANGE = 30.0
"""Longest wait of a node for another one in an all-reduce, which has to connect all of them first."""

_MIN_NODES = 2
_STARTING = "starting a process"
_EXCHANGES = 8
_PAYLOAD_BYTES, _PAYLOADS = 16 * 2**20, 2


@dataclass(frozen=True)
class _Asked:
    """What a node is asked about.

    Attributes:
        scratch: folder that all nodes write to.
        read: folders that all nodes read.
        payloads: references to the bytes that the driver sends, one after another.
        most_seconds: time in which a node must have answered everything, once it has started a process.
        most_seconds_to_start: time to start it.
    """

    scratch: Path
    read: list[str]
    payloads: "list[ray.ObjectRef[bytes]]"
    most_seconds: float
    most_seconds_to_start: float


def check_nodes(
    folder: Path,
    read: Sequence[Path],
    environment: Mapping[str, str],
    most_seconds: float,
    most_seconds_to_start: float,
    *,
    on_accelerators: bool,
) -> tuple[list[NodeCheck], Exchange | None]:
    """Measure every node, and then what nodes exchange with each other; None if there are fewer than two.

    It takes a few seconds, and not much longer than the limits if a node does not answer. Accelerators that another
    run has reserved are left alone: they may have no memory left for more than that run.

    Args:
        folder: folder that all nodes write to.
        read: folders that all nodes read. Their names identify their content.
        environment: environment variables of ranks that say how they communicate.
        on_accelerators: whether ranks compute on accelerators.
        most_seconds: time in which a node must have answered everything, once it has started a process.
        most_seconds_to_start: time to start it.
    """
    nodes = usable_nodes()
    free = _free_gpus(nodes)
    with _scratch_folder(folder) as scratch, ThreadPoolExecutor(len(nodes)) as threads:
        probes = [_start_probe(node, num_gpus) for node, num_gpus in zip(nodes, free, strict=True)]
        try:
            payloads = [ray.put(bytes(_PAYLOAD_BYTES)) for _ in range(_PAYLOADS)]
            folders = [str(path.absolute()) for path in read]
            asked = _Asked(scratch, folders, payloads, most_seconds, most_seconds_to_start)
            checks = list(threads.map(_check, nodes, free, probes, [asked] * len(nodes)))
            return checks, _exchange(checks, probes, environment, on_accelerators=on_accelerators)
        finally:
            for probe in probes:  # which also ends the threads that wait for them
                ray.kill(probe)


@contextmanager
def _scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder with the modes that the umask gives, since nodes may run as another user of the same group."""
    scratch = folder.absolute() / f".sftkey-preflight-{secrets.token_hex(4)}"
    make_folder(scratch)
    try:
        yield scratch
    finally:
        remove_tree(scratch)


def _free_gpus(nodes: Sequence[dict[str, Any]]) -> list[int]:
    """Number of accelerators of each node that nobody has reserved."""
    # Ray has no public API for single nodes.
    available = ray._private.state.available_resources_per_node()
    return [int(available.get(node["NodeID"], {}).get("GPU", 0)) for node in nodes]


def _start_probe(node: dict[str, Any], num_gpus: int) -> Any:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(Probe).options(num_cpus=0, num_gpus=num_gpus, scheduling_strategy=there).remote()


def _check(node: dict[str, Any], num_gpus: int, probe: Any, asked: _Asked) -> NodeCheck:
    """Ask a node step by step, what training cannot do without first, until the time is over."""
    name, in_use = node["NodeID"], int(node["Resources"].get("GPU", 0)) - num_gpus
    is_here = name == ray.get_runtime_context().get_node_id()
    check = NodeCheck(node["NodeManagerAddress"], num_gpus, in_use)
    seconds = asked.most_seconds_to_start
    deadline = time.monotonic() + seconds

    def answer(method: str, *arguments: object) -> Any:
        left = max(0.0, deadline - time.monotonic())
        return interruptible(ray.get, getattr(probe, method).remote(*arguments), timeout=left)

    steps: dict[str, Callable[[], dict[str, Any]]] = {
        _STARTING: lambda: {"clock": _clock(answer)},
        "listing what is installed": lambda: {"software": answer("software")},
        "writing to the run directory": lambda: {
            "storage": answer("storage", str(asked.scratch), asked.read, name),
            "is_seen": (asked.scratch / name).exists(),
        },
        "receiving from the driver": lambda: {
            "received_bytes_per_second": None if is_here else _receiving(answer, asked)
        },
        "multiplying matrices": lambda: {"speeds": answer("speeds", num_gpus)},
    }
    for doing, step in steps.items():
        try:
            check = replace(check, **step())
        except GetTimeoutError:
            return replace(check, problem=f"had not finished {doing} after {seconds:g} s")
        except RayError as error:
            is_there = any(other["NodeID"] == name for other in usable_nodes())
            return replace(check, problem=f"failed while {doing} ({in_one_line(error)})", is_broken=is_there)
        if doing == _STARTING:
            seconds = asked.most_seconds
            deadline = time.monotonic() + seconds
    return check


def _exchange(
    checks: Sequence[NodeCheck], probes: Sequence[Any], environment: Mapping[str, str], *, on_accelerators: bool
) -> Exchange | None:
    """An all-reduce of the nodes that have answered, and that ranks may run on."""
    there = [
        (check.address, probe)
        for check, probe in zip(checks, probes, strict=True)
        if not check.problem and (check.num_gpus or not on_accelerators)
    ]
    if len(there) < _MIN_NODES:
        return None
    address, first = there[0]
    try:
        port = interruptible(ray.get, first.listen.remote(address), timeout=MAX_SECONDS_TO_EXCHANGE)
        group = NodeGroup(address, port, len(there), environment, on_accelerators, MAX_SECONDS_TO_EXCHANGE)
        rates = [probe.all_reduce.remote(group, rank) for rank, (_, probe) in enumerate(there)]
        return Exchange(min(interruptible(ray.get, rates, timeout=2 * MAX_SECONDS_TO_EXCHANGE)))
    except GetTimeoutError:
        return Exchange(problem=f"had not finished after {2 * MAX_SECONDS_TO_EXCHANGE:g} s")
    except RayError as error:
        return Exchange(problem=in_one_line(error))


def _clock(answer: Callable[..., Any]) -> Clock:
    """Compare the clocks as NTP does: in the shortest of several exchanges, the answer was read in the middle of it."""
    answer("clock")  # waits for the process
    exchanges = []
    for _ in range(_EXCHANGES):
        sent = time.time()
        there = answer("clock")
        received = time.time()
        exchanges.append(Clock(there - (sent + received) / 2, (received - sent) / 2))
    return min(exchanges, key=lambda exchange: exchange.uncertainty_seconds)


def _receiving(answer: Callable[..., Any], asked: _Asked) -> float:
    """Bytes a second that a node receives from the driver, while other nodes receive too."""
    rates = []
    for payload in asked.payloads:  # the first one opens connections
        started = time.perf_counter()
        num_bytes: int = answer("receive", payload)
        rates.append(num_bytes / (time.perf_counter() - started))
    return max(rates)
