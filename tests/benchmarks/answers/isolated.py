"""Calls that must end: a power tower holds Python's arithmetic longer than any signal can interrupt."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_FORK = multiprocessing.get_context("fork")


def is_true_within(seconds: float, work: Callable[..., bool], *arguments: Any) -> bool:
    """What the call returns, in a process of its own; False where it fails or takes longer."""
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_call, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.poll(seconds) and bool(receiver.recv())
    except EOFError:
        return False
    finally:
        process.kill()
        process.join()
        receiver.close()


def _call(sender: Connection, work: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
    sender.send(work(*arguments))
