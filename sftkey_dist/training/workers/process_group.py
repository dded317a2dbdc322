"""What a worker does before its training function: it loads libraries, and joins a process group of torch.

A worker imports this module before anything else, so it must be light: the functions import what they need, without
garbage collection.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sftkey_dist.startup import UNUSED_BY_LANGUAGE_MODELS, loading_libraries

LOOPBACK = "127.0.0.1"
_STORES: list[Any] = []
"""The key-value stores that this process serves."""


def load_libraries() -> None:
    """Load what training needs. Workers do it all at once, before one of them waits for another.

    An error is raised where the training function loads the same: Ray would not say in which rank it happened here.
    """
    with suppress(Exception), loading_libraries(without=UNUSED_BY_LANGUAGE_MODELS):
        import transformers.modeling_utils  # noqa: F401  # before the model's own, which is loaded with its weights

        import sftkey_dist.training.loop  # noqa: F401


def serve_store() -> int:
    """Start the store in rank 0's process, which later finds it by the port that is returned."""
    with loading_libraries():
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

    listening = socket.create_server((LOOPBACK, 0))
    port = int(listening.getsockname()[1])
    # The process group takes it over: torch keeps one store for each port of a process.
    _STORES.append(
        TCPStore(
            LOOPBACK,
            port,
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,
            master_listen_fd=listening.detach(),
        )
    )
    return port


def join(backend: str, timeout_seconds: int, address: str, port: int, rank: int, num_ranks: int) -> None:
    """Join the process group, with Ray's own functions.

    Args:
        backend: of torch.distributed: `gloo` or `nccl`.
        timeout_seconds: longest wait of a rank for another.
        address: where the store of rank 0 listens.
        port: of that store.
        rank: of this worker.
        num_ranks: size of the group.
    """
    with loading_libraries():
        from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    os.environ.update({"MASTER_ADDR": address, "MASTER_PORT": str(port)})
    _set_torch_distributed_env_vars()
    _setup_torch_process_group(backend, rank, num_ranks, "env://", timeout_seconds)


@contextmanager
def on_own_device() -> Iterator[None]:
    """Make a worker's accelerator the default one of torch."""
    with loading_libraries():
        from ray.train.torch.config import TorchConfigContextManager

    with TorchConfigContextManager():
        yield
