"""A function that must end: a power tower holds Python's arithmetic longer than any signal can interrupt."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

_FORK = multiprocessing.get_context("fork")


class Isolated:
    """A yes-or-no function in a process of its own, which is replaced when a call takes too long.

    A call that fails or takes longer than `limit_seconds` says no. The process lives on between calls, since parsers
    are slow before they have filled their caches.
    """

    def __init__(self, work: Callable[..., bool], limit_seconds: float) -> None:
        self._work, self._limit_seconds = work, limit_seconds

    def __enter__(self) -> Self:
        self._connection, worker_end = _FORK.Pipe()
        self._process = _FORK.Process(target=_serve, args=(self._work, worker_end), daemon=True)
        self._process.start()
        worker_end.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def __call__(self, *arguments: Any) -> bool:
        self._connection.send(arguments)
        try:
            if self._connection.poll(self._limit_seconds):
                return bool(self._connection.recv())
        except EOFError:
            pass  # the process died
        self.__exit__(None, None, None)
        self.__enter__()
        return False


def _serve(work: Callable[..., bool], connection: Connection) -> None:
    while True:
        arguments = connection.recv()
        try:
            is_true = work(*arguments)
        except Exception:
            is_true = False
        connection.send(is_true)
