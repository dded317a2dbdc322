"""An all-reduce between nodes, in the processes that measure them."""

import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from sftkey_dist.preflight.records import NodeGroup

_ELEMENTS = 4 * 2**20
_REPETITIONS = 3


def all_reduce(group: NodeGroup, rank: int, listening: socket.socket | None) -> float:
    """Sum a tensor over all nodes of a group; called on all of them at the same time.

    Args:
        group: the nodes.
        rank: number of this node.
        listening: on the first node, the socket where the others find it.

    Returns:
        Bytes of a tensor that is summed over all nodes in a second.

    Raises:
        RuntimeError: the nodes do not reach each other, or their sum is wrong.
    """
    os.environ.update(group.environment)
    limit = timedelta(seconds=group.most_seconds)
    taken_over: dict[str, Any] = {} if listening is None else {"master_listen_fd": listening.detach()}
    store = TCPStore(group.address, group.port, group.size, listening is not None, timeout=limit, **taken_over)
    backend, device = ("nccl", torch.device("cuda", 0)) if group.on_accelerators else ("gloo", torch.device("cpu"))
    dist.init_process_group(backend, store=store, rank=rank, world_size=group.size, timeout=limit)
    try:
        return _rate(device, group.size)
    finally:
        dist.destroy_process_group()


def _rate(device: torch.device, size: int) -> float:
    seconds = []
    for _ in range(_REPETITIONS):  # the first one connects the nodes
        ones = torch.ones(_ELEMENTS, device=device)
        started = time.perf_counter()
        dist.all_reduce(ones)
        is_right = bool((ones == size).all())
        seconds.append(time.perf_counter() - started)
        if not is_right:
            raise RuntimeError("the sum of an all-reduce is wrong")
    return ones.nbytes / min(seconds)
