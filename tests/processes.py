"""The processes of a command, for tests that look at them or end them."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

import psutil


def descendants(pid: int) -> set[int]:
    """Processes started by a process, directly or not."""
    with suppress(psutil.NoSuchProcess):
        return {process.pid for process in psutil.Process(pid).children(recursive=True)}
    return set()


def command_of(pid: int) -> list[str]:
    """The words of its command, or the title that it has given itself; empty if it has ended."""
    with suppress(psutil.Error):
        return psutil.Process(pid).cmdline()
    return []


def training_workers(roots: Iterable[int]) -> list[int]:
    """The ranks of a run among the descendants of processes."""
    below = {pid for root in roots for pid in descendants(root)}
    return [pid for pid in sorted(below) if "".join(command_of(pid)).startswith("ray::RayTrainWorker")]


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended: nobody may collect those that have lost their parent."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def kill_all(pids: Iterable[int]) -> None:
    """Kill those of them that have not ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
