"""glibc's allocator in processes that train on a CPU: what it keeps, and when it gives that back."""

import ctypes
from contextlib import suppress

CPU_ALLOCATOR = {
    # Activations come and go every micro-batch. By default glibc hands large ones back to the kernel each time, and
    # the page faults of getting them again cost a tenth to a fifth of a step; huge pages save the rest of them. What
    # is larger than 256 MiB does go back: it fits into no hole that others leave, and with half a billion float32
    # weights on two ranks, keeping it took 1 to 4 GiB a rank more after the first backward pass, at the same speed
    # (from 64 MiB on, giving back costs a fifth). One arena, because Ray trains in a thread, and what threads other
    # than the first allocate lies in heaps of 64 MiB: whatever is larger goes back to the kernel all the same.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {"arena_max": 1, "hugetlb": 1, "trim_threshold": 2**34, "mmap_threshold": 2**28}.items()
    )
}
"""Environment of such a process, read when it starts."""


def return_freed_memory() -> None:
    """Give the kernel all pages that nothing lies on; elsewhere than under glibc, nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
