"""What the device computes in a block of code, and for how much of the time it waits for the host."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_MAX_KERNELS = 15
_MICROSECOND = 1e-6


class KernelWatch:
    """Profiles one block of code on an accelerator; on a CPU it finds nothing."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Profile the block."""
        if not torch.cuda.is_available():
            yield
            return
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as watched:
            started = time.perf_counter()
            yield
            torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        kernels = sorted(watched.key_averages(), key=lambda of: -of.self_device_time_total)
        busy = sum(of.self_device_time_total for of in kernels) * _MICROSECOND
        self.found = {
            "device_busy_share": busy / seconds,
            "kernel_launches": sum(of.count for of in kernels),
            "kernels": [
                {"name": of.key[:90], "launches": of.count, "ms": of.self_device_time_total * 1e-3}
                for of in kernels[:_MAX_KERNELS]
            ],
        }
