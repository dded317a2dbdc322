"""What this machine has to offer."""

import os
from contextlib import suppress
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time in each period, and the period, of a container that has a limit."""


def usable_cores() -> int:
    """CPU cores that this process may use, at least 1: of a container with a limit, only its share."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no cgroups of version 2, or no limit, which reads "max"
        quota, period = map(int, _CPU_QUOTA.read_text(encoding="ascii").split())
        cores = min(cores, quota // period)
    return max(1, cores)


def free_memory_bytes() -> int:
    """Memory that new processes can use; 0 where the system does not report it as Linux does."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
