"""Distributes shards of work over the cores of this machine."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sftkey_dist.errors import TransientDataError
from sftkey_dist.machine import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_cores(work: Callable[[Item], Result], items: Sequence[Item], num_workers: int | None) -> Iterator[Result]:
    """Yield the results of ``work`` in the order of ``items``; with a single process, in this process.

    Args:
        work: an importable function that is called with one item.
        items: the items, which should be small because they are sent to the processes.
        num_workers: number of processes; default: the number of cores that this process may use.

    Raises:
        TransientDataError: A process was killed.
    """
    processes = min(len(items), num_workers or usable_cores())
    if processes <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and their locks
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread_each)
    try:
        yield from pool.map(work, items)
    except BrokenProcessPool as error:
        raise TransientDataError(
            "an encoding process was killed, most likely because memory ran out; lower data.num_workers or "
            "data.shard_rows and run the command again; finished shards are kept. A script must call run below "
            'if __name__ == "__main__":, because these processes import it'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_thread_each() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
