"""How long the collectives of a step run, as torch's profiler sees them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

_MICROSECOND = 1e-6


class CollectiveWatch:
    """Watches the collectives of rank 0 in one step of so many; profiling such a step slows it a little."""

    def __init__(self, every_steps: int, rank: int) -> None:
        self._every_steps, self._rank = every_steps, rank
        self._seconds: float | None = None

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Watch the block if it is the step's turn."""
        if self._rank != 0 or (step + 1) % self._every_steps:
            yield
            return
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it says on stderr when it starts and stops
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities, acc_events=True) as profiler:
            yield
        self._seconds = _covered_seconds(filter(_is_collective, profiler.events() or []))

    def take(self) -> float | None:
        """Seconds in which a collective of the last step ran, beside computation or not; None if nobody watched."""
        seconds, self._seconds = self._seconds, None
        return seconds


def _is_collective(event: FunctionEvent) -> bool:
    """Gloo's run in threads of the host, NCCL's as kernels of the device."""
    if event.device_type == DeviceType.CUDA:
        return "nccl" in event.name.lower()
    return bool(event.name.startswith("gloo:"))


def _covered_seconds(events: Iterable[FunctionEvent]) -> float:
    """Collectives may run beside each other: time counts once."""
    covered = reached = 0.0
    for event in sorted(events, key=lambda event: event.time_range.start):
        start, end = max(event.time_range.start, reached), event.time_range.end
        if end > start:
            covered, reached = covered + end - start, end
    return covered * _MICROSECOND
