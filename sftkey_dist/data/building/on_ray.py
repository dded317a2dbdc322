"""Distributes shards of work over the nodes of a Ray cluster with Ray Data."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
import ray.data
from ray import cloudpickle

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import DataError, TransientDataError

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_RETRIES = 3
"""Of a shard whose process is lost. By default Ray Data tries for ever, also where memory is too small for it."""


def run_on_ray(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the results of ``work`` in the order of ``items``, with one task per item on any node of the cluster.

    Files that a task reads and writes must lie on storage that all nodes share.

    Raises:
        DataError: A task found an error in the data.
        TransientDataError: A node lacks the folder, or processes were lost again and again.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [{"item": cloudpickle.dumps(item)} for item in items]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_Work(work), max_retries=_MAX_RETRIES)
    try:
        for row in results.iter_rows():
            yield cloudpickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        raise _data_error(error) or TransientDataError(
            f"rows cannot be encoded on the cluster, but what was finished is kept, and the same command continues: "
            f"{in_a_line(error, 300)}"
        ) from error


class _Work:
    """Unpickles an item, processes it, and pickles the result, because rows of Ray Data contain plain columns."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._folder = os.getcwd()

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        """Change to the folder of the command first, so that relative paths mean the same on every node."""
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise TransientDataError(
                f"{self._folder}: cannot be entered on node {platform.node()} ({error.strerror}); run the command in a "
                f"folder that all nodes share"
            ) from error
        return {"result": cloudpickle.dumps(self._work(cloudpickle.loads(row["item"])))}


def _data_error(error: BaseException | None) -> DataError | None:
    """The DataError inside the errors that Ray wraps around it; None if there is none."""
    while error is not None and not isinstance(error, DataError):
        error = getattr(error, "cause", None) or error.__cause__
    return error
