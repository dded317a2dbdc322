"""Shards of work over the nodes of a Ray cluster, by Ray Data."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
import ray.data
from ray import cloudpickle

from sftkey_dist.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_ray(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results of ``work`` in the order of ``items``, one task each, on any node of the connected cluster.

    What a task reads and writes must lie on storage that all nodes share.

    Raises:
        DataError: a task met a mistake in the data.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [{"item": cloudpickle.dumps(item)} for item in items]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_Work(work))
    try:
        for row in results.iter_rows():
            yield cloudpickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        raise _data_error(error) or error from None


class _Work:
    """Unpacks an item, works on it, and packs the result: Ray Data's rows hold plain columns."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._folder = os.getcwd()

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        """Relative paths mean on every node what they mean to whoever gave the command."""
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise DataError(
                f"{self._folder}: cannot be entered on node {platform.node()} ({error.strerror}); run the command in a "
                f"folder that all nodes share"
            ) from error
        return {"result": cloudpickle.dumps(self._work(cloudpickle.loads(row["item"])))}


def _data_error(error: BaseException | None) -> DataError | None:
    """The user's mistake inside the errors that Ray wraps around it."""
    while error is not None and not isinstance(error, DataError):
        error = getattr(error, "cause", None) or error.__cause__
    return error
