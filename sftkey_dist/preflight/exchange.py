"""An all-reduce between nodes, in the processes that measure them."""

import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_ELEMENTS = 4 * 2**20
_REPETITIONS = 3


class Meeting:
    """One node's part in a process group of all nodes."""

    def __init__(self) -> None:
        self._listening: socket.socket | None = None

    def listen(self, address: str) -> int:
        """Listen for the other nodes, on this address only; returns the port."""
        self._listening = socket.create_server((address, 0))
        return int(self._listening.getsockname()[1])

    def all_reduce(
        self,
        address: str,
        port: int,
        rank: int,
        size: int,
        environment: Mapping[str, str],
        most_seconds: float,
        *,
        on_accelerators: bool,
    ) -> float:
        """Sum a tensor over all nodes; called on all of them at the same time.

        Args:
            address: where the first node listens.
            port: where the first node listens.
            rank: number of this node.
            size: number of nodes.
            environment: environment variables that say how ranks communicate.
            most_seconds: longest wait for another node.
            on_accelerators: whether to sum on the first accelerator of each node, and not on its processor.

        Returns:
            Bytes of a tensor that is summed over all nodes in a second.

        Raises:
            RuntimeError: the nodes do not reach each other, or their sum is wrong.
        """
        os.environ.update(environment)
        limit = timedelta(seconds=most_seconds)
        store = TCPStore(address, port, size, self._listening is not None, timeout=limit, **self._socket())
        backend, device = ("nccl", torch.device("cuda", 0)) if on_accelerators else ("gloo", torch.device("cpu"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
        try:
            return _rate(device, size)
        finally:
            dist.destroy_process_group()

    def _socket(self) -> dict[str, Any]:
        """What the first node's store takes over."""
        return {} if self._listening is None else {"master_listen_fd": self._listening.detach()}


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
