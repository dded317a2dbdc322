"""What signals do: end a command at once, or first ask the training in it to save what it has."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sftkey_dist.errors import InterruptedRunError, RunLostError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOST = signal.SIGUSR1
_ONE_MOMENT_SECONDS = 1.0
"""Whoever ends a group of processes may send several signals, or one of them twice; within it they are one request."""

_problems: list[str] = []
"""What `end_at_once` was given; a signal carries no text."""

Handler = Callable[[int, FrameType | None], Any]


def raise_on_signals() -> None:
    """From now on a signal raises InterruptedRunError in the main thread, and `end_at_once` what it is given."""
    _handle(_at_first_of_a_moment(_raise))
    signal.signal(_LOST, _raise_lost)


def end_at_once(problem: str) -> None:
    """Raise RunLostError in the main thread, from another one, whatever it is at; only where signals raise."""
    if signal.getsignal(_LOST) is _raise_lost:
        _problems.append(problem)
        os.kill(os.getpid(), _LOST)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Undo what the block, such as ray.init, does to the handlers.

    Raises:
        InterruptedRunError: a signal ended the block by a handler of its own, which exits.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    except SystemExit as end:
        raise InterruptedRunError(signal.SIGTERM) from end
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


class GentleStop:
    """Whether a signal has come.

    Attributes:
        signal_number: of the first signal; None as long as there was none.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        """
        Args:
            ask: called at the first signal.
        """
        self.signal_number: int | None = None
        self._ask = ask

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Ask at the first signal; end at the second."""
        if self.signal_number is not None:
            raise InterruptedRunError(number)
        self.signal_number = number
        self._ask()


@contextmanager
def stopping_gently(ask: Callable[[], None]) -> Iterator[GentleStop]:
    """In the block the first signal calls ``ask``, a later one raises InterruptedRunError."""
    stop = GentleStop(ask)
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            _handle(_at_first_of_a_moment(stop.on_signal))
        yield stop


def _handle(handler: Handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, a shell SIGINT of what it puts behind
            signal.signal(number, handler)


def _at_first_of_a_moment(handler: Handler) -> Handler:
    """Calls the handler at the first of signals that come together."""
    last = -_ONE_MOMENT_SECONDS

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if number == signal.SIGHUP:
            _let_go_of_terminal()
        if time.monotonic() - last >= _ONE_MOMENT_SECONDS:
            last = time.monotonic()
            handler(number, frame)

    return handle


def _let_go_of_terminal() -> None:
    """Writing to a terminal that was closed is an error, which would end what is to be saved."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream.isatty():
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _raise(number: int, frame: FrameType | None) -> None:
    raise InterruptedRunError(number)


def _raise_lost(number: int, frame: FrameType | None) -> None:
    raise RunLostError(_problems[-1] if _problems else "the run directory was lost")
