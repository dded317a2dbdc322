"""What ranks on processors get from their launcher."""

import os
import subprocess
import sys

from sftkey_dist.training.workers import CPU_ALLOCATOR

# Ray Train trains in a thread; the first round lets the process grow to what it needs.
PAGE_FAULTS = """
import resource, threading, torch

def allocate(rounds):
    for _ in range(rounds):
        tensors = [torch.empty(megabytes * 250_000).fill_(1.0) for megabytes in (200, 40)]
        del tensors

def measure():
    allocate(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate(5)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""


def page_faults(settings: dict[str, str]) -> int:
    found = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS], env=os.environ | settings, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def test_tensors_that_come_and_go_in_a_thread_stay_with_the_process():
    """Several hundred MB a round are some hundred faults a round even with huge pages; what stays costs none."""
    one_arena = CPU_ALLOCATOR["GLIBC_TUNABLES"]
    several = {"GLIBC_TUNABLES": one_arena.replace("glibc.malloc.arena_max=1:", "")}
    assert page_faults(CPU_ALLOCATOR) * 5 < page_faults(several)
