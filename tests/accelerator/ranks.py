"""Ranks on this machine's accelerator or its CPU, and what each of them returns."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sftkey_dist.training.engine.factory import join_process_group
from sftkey_dist.training.workers.threads import limit_threads
from tests.distributed.harness import PRELOADED, free_port, join_as_rank

Device = Literal["cuda", "cpu"]


def this_device() -> Device:
    """What is measured: the accelerator, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def on_ranks(
    world_size: int,
    device: Device,
    work: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """What ``work(*arguments)`` returns on every rank of a fresh process group, in rank order.

    Ranks beside each other on one accelerator speak gloo: NCCL refuses two of them on a device.
    """
    # Libraries choose a device when they are imported, which a new process does before it runs anything of ours.
    started_with = {"DS_ACCELERATOR": device} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    with tempfile.TemporaryDirectory() as folder, _environment(started_with | dict(environment or {})):
        mp.start_processes(
            _run_rank,
            args=(world_size, free_port(), device, dict(environment or {}), Path(folder), work, arguments),
            nprocs=world_size,
            start_method=_start_method(),
        )
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world_size)]


def _start_method() -> str:
    """Without a device, ranks are forked from a server that has imported what they need; CUDA survives no fork."""
    if torch.cuda.is_available():
        return "spawn"
    mp.set_forkserver_preload(PRELOADED)
    return "forkserver"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Of the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _run_rank(
    rank: int,
    world_size: int,
    port: int,
    device: Device,
    environment: dict[str, str],
    folder: Path,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(environment)
    join_as_rank(rank, world_size, port, device)
    if device == "cpu":
        limit_threads(1)
    else:
        torch.cuda.set_device(0)
    dist.init_process_group("nccl" if device == "cuda" and world_size == 1 else "gloo")
    join_process_group()
    result = work(*arguments)
    (folder / f"{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()
