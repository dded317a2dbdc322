"""What the allocator keeps of freed tensors."""

import os
import subprocess
import sys

import pytest

from sftkey_dist.training.allocator import CPU_ALLOCATOR

pytestmark = pytest.mark.slow
TENSOR_MIB = 200
# Ray Train trains in a thread. What is resident tells what would have to be fetched again, with and without huge pages.
KEPT_MIB = f"""
import os, sys, threading, torch
from sftkey_dist.training.allocator import return_freed_memory

def resident_mib():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

def measure():
    before = resident_mib()
    tensor = torch.empty({TENSOR_MIB} * 2**18).fill_(1.0)
    del tensor
    if "return" in sys.argv:
        return_freed_memory()
    print(resident_mib() - before)

thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""


def kept_mib(settings: dict[str, str], *arguments: str) -> int:
    command = [sys.executable, "-c", KEPT_MIB, *arguments]
    found = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def test_a_tensor_freed_in_a_thread_stays_with_the_process_until_it_is_returned():
    one_arena = CPU_ALLOCATOR["GLIBC_TUNABLES"]
    several = {"GLIBC_TUNABLES": one_arena.replace("glibc.malloc.arena_max=1:", "")}
    assert kept_mib(CPU_ALLOCATOR) >= TENSOR_MIB
    assert kept_mib(several) < TENSOR_MIB // 2
    assert kept_mib(CPU_ALLOCATOR, "return") < TENSOR_MIB // 2
