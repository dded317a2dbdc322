"""Shards of work over the cores of this machine."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sftkey_dist.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_cores(work: Callable[[Item], Result], items: Sequence[Item], num_workers: int | None) -> Iterator[Result]:
    """Results of ``work`` in the order of ``items``; few items are not worth a process.

    Args:
        work: a function that other processes can import, called with one item.
        items: what to work on; small, for they travel.
        num_workers: processes; default: the cores that this process may use.

    Raises:
        DataError: a process was killed.
    """
    processes = min(len(items), num_workers or len(os.sched_getaffinity(0)))
    if processes <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and their locks
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread_each)
    try:
        yield from pool.map(work, items)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that encodes was killed, most likely for want of memory: lower data.num_workers or "
            "data.shard_rows and run again; finished shards are kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_thread_each() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
