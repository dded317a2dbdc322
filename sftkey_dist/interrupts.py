"""Signal handling: a signal ends a command at once, or first asks its training to save a checkpoint."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, ParamSpec, TypeVar

from sftkey_dist.errors import InterruptedRunError, RunLostError

P = ParamSpec("P")
T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOST = signal.SIGUSR1
_DEBOUNCE_SECONDS = 1.0
"""Signals within this time count as one request, because ending a group of processes may send several of them."""

_problems: list[str] = []
"""Messages given to `end_at_once`; a signal cannot carry a text."""

_raised: list[BaseException] = []
"""What handlers have raised in this process, the newest last."""

_stops: "list[GentleStop]" = []
"""Those of the blocks of `stopping_gently` that run."""

Handler = Callable[[int, FrameType | None], object]


class _Waiting(threading.local):
    is_for_ray = False
    """Whether this thread is in a call of `interruptible`. Handlers run in the main thread."""
    ended_by: BaseException | None = None
    """What a handler would have raised in the call."""


_waiting = _Waiting()


def raise_on_signals() -> None:
    """From now on, a signal raises InterruptedRunError in the main thread, and `end_at_once` raises RunLostError
    there."""
    _handle(_debounced(_raise_interrupted))
    signal.signal(_LOST, _raise_lost)


def end_at_once(problem: str) -> None:
    """From another thread, raise RunLostError in the main thread; does nothing unless `raise_on_signals` was called."""
    if signal.getsignal(_LOST) is _raise_lost:
        _problems.append(problem)
        os.kill(os.getpid(), _LOST)


def interruptible(call: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
    """Call `ray.get` or `ray.wait` so that a signal ends it at once.

    Of what a handler raises, these functions pass on a KeyboardInterrupt alone, and that as a new one. With anything
    else they go on waiting for their result, and then fail with a SystemError.

    Raises:
        InterruptedRunError: a signal ended the call.
        RunLostError: `end_at_once` ended it.
    """
    _waiting.ended_by = None
    try:  # the flag is set within it alone, so that no KeyboardInterrupt leaves this function
        _waiting.is_for_ray = True
        result = call(*arguments, **keywords)
        _waiting.is_for_ray = False
    except BaseException as error:
        _waiting.is_for_ray = False
        if isinstance(error, KeyboardInterrupt) and _waiting.ended_by is not None:
            raise _waiting.ended_by from None
        raise
    return result


@contextmanager
def interruptions_kept() -> Iterator[None]:
    """Raise again what a handler raised in the block, if a library raised another error in its place or caught it.

    SQLAlchemy, for one, cannot roll back a transaction that was interrupted, and raises an error that names a fault of
    the store.

    Raises:
        InterruptedRunError: a signal came in the block.
        RunLostError: `end_at_once` was called meanwhile.
    """
    raised_before = len(_raised)
    try:
        yield
    except Exception:
        _raise_again(raised_before)
        raise
    _raise_again(raised_before)


def _raise_again(raised_before: int) -> None:
    if threading.current_thread() is threading.main_thread() and len(_raised) > raised_before:
        raise _raised[raised_before] from None


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the signal handlers after a block that changes them, such as ray.init.

    Raises:
        InterruptedRunError: A signal ended the block through a handler that exits.
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
    """Asks for a stop at the first signal, and remembers it.

    Attributes:
        signal_number: number of the first signal; None if there was none yet.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        """
        Args:
            ask: function that is called at the first signal.
        """
        self.signal_number: int | None = None
        self._ask = ask

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Ask for a stop at the first signal, and raise at the second, or if nobody can be asked: the disk is full."""
        if self.signal_number is not None:
            _raise(InterruptedRunError(number))
        self.signal_number = number
        try:
            self._ask()
        except OSError:
            if threading.current_thread() is not threading.main_thread():
                raise
            _raise(InterruptedRunError(number))


@contextmanager
def stopping_gently(ask: Callable[[], None]) -> Iterator[GentleStop]:
    """In the block, the first signal calls ``ask`` and a later one raises InterruptedRunError."""
    stop = GentleStop(ask)
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            _handle(_debounced(stop.on_signal))
        _stops.append(stop)
        try:
            yield stop
        finally:
            _stops.remove(stop)


def stop_gently() -> None:
    """From another thread, do what the first signal does in every block of `stopping_gently`; repeated, it does
    nothing more."""
    for stop in [stop for stop in _stops if stop.signal_number is None]:
        stop.on_signal(signal.SIGTERM, None)


def _handle(handler: Handler) -> None:
    for number in SIGNALS:
        # nohup ignores SIGHUP, and shells ignore SIGINT for jobs in the background; both stay ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _debounced(handler: Handler) -> Handler:
    """Wrap a handler, so that it is called only for the first of several signals that arrive together."""
    last = -_DEBOUNCE_SECONDS

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if number == signal.SIGHUP:
            _stop_writing_to_terminal()
        if time.monotonic() - last >= _DEBOUNCE_SECONDS:
            last = time.monotonic()
            handler(number, frame)

    return handle


def _stop_writing_to_terminal() -> None:
    """Stop writing to the terminal: it was closed, and an error in writing would prevent saving."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream.isatty():
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _raise_interrupted(number: int, frame: FrameType | None) -> None:
    _raise(InterruptedRunError(number))


def _raise_lost(number: int, frame: FrameType | None) -> None:
    _raise(RunLostError(_problems[-1] if _problems else "the run directory was lost"))


def _raise(error: BaseException) -> NoReturn:
    """Raise an error in a handler, or what `interruptible` replaces by it."""
    _raised.append(error)
    if not _waiting.is_for_ray:
        raise error
    _waiting.ended_by = error
    raise KeyboardInterrupt
