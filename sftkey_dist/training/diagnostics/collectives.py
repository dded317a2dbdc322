"""The time that the collectives of a micro-batch take, from torch's profiler."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sftkey_dist.run_dir.artifacts.training import CollectiveTimes

_NANOSECOND = 1e-9


class CollectiveWatch:
    """Profiles the collectives of rank 0 in the last micro-batch of every so many steps.

    All ranks wait while rank 0 collects the profiler's records. It therefore profiles one micro-batch, on an
    accelerator only kernels, and reads the raw records: converting each to an event of torch takes 0.1 ms, and a
    micro-batch of a large model has hundreds of thousands.
    """

    def __init__(self, every_steps: int, rank: int) -> None:
        self._every_steps, self._rank = every_steps, rank
        self._found: CollectiveTimes | None = None

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Profile the block if the step is one of those that are profiled."""
        if self._rank != 0 or (step + 1) % self._every_steps:
            yield
            return
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports on stderr when it starts and stops
        entered = time.perf_counter()
        watched = profile(activities=[ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU])
        watched.start()
        begun = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ended = time.perf_counter()
        watched.stop()
        results: Any = watched.profiler
        seconds = _covered_seconds(filter(_is_collective, results.kineto_results.events()))
        left = time.perf_counter()
        self._found = CollectiveTimes(seconds, ended - begun, begun - entered + left - ended)

    def take(self) -> CollectiveTimes | None:
        """Return what was measured in the last step, and forget it; None if the step was not profiled."""
        found, self._found = self._found, None
        return found


def _is_collective(event: Any) -> bool:
    """Gloo's collectives run in threads of the host, NCCL's as kernels of the device."""
    if event.device_type() == DeviceType.CUDA:
        return "nccl" in event.name().lower()
    return bool(event.name().startswith("gloo:"))


def _covered_seconds(events: Iterable[Any]) -> float:
    """Seconds in which at least one of the events ran; they may overlap."""
    covered = reached = 0
    for start, end in sorted((event.start_ns(), event.end_ns()) for event in events):
        start = max(start, reached)
        if end > start:
            covered, reached = covered + end - start, end
    return covered * _NANOSECOND
