"""Sends requests from several threads, which never keep a program from ending."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(call: Callable[[Item], Result], items: Sequence[Item], num_threads: int) -> Iterator[Result]:
    """Yield what ``call`` returns for each item, in order.

    Python waits at its end for the threads of `concurrent.futures`, and so for requests that a signal has made useless.
    These are daemons, and take no further item once the results are no longer asked for.

    Raises:
        BaseException: what ``call`` raised.
    """
    results: list[Future[Result]] = [Future() for _ in items]
    waiting = deque(zip(results, items, strict=True))

    def work() -> None:
        with suppress(IndexError):  # nothing is waiting
            while True:
                result, item = waiting.popleft()
                try:
                    result.set_result(call(item))
                except BaseException as error:
                    result.set_exception(error)

    for _ in range(min(num_threads, len(items))):
        Thread(target=work, name="request", daemon=True).start()
    try:
        for result in results:
            yield result.result()
    finally:
        waiting.clear()
