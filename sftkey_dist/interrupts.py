"""What SIGINT and SIGTERM do: end a command at once, or first ask the training in it to save what it has."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sftkey_dist.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_on_signals() -> None:
    """From now on either signal raises InterruptedRunError in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _raise)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Undo what the block, such as ray.init, does to the handlers."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
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
    """In the block the first signal calls ``ask``, a second one raises InterruptedRunError."""
    stop = GentleStop(ask)
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, stop.on_signal)
        yield stop


def _raise(number: int, frame: FrameType | None) -> None:
    raise InterruptedRunError(number)
