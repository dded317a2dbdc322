import os
import signal

import pytest

from sftkey_dist.errors import InterruptedRunError
from sftkey_dist.interrupts import handlers_kept, raise_on_signals, stopping_gently


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number):
    asked = []
    before = signal.getsignal(number)
    with stopping_gently(lambda: asked.append(True)) as stop:
        os.kill(os.getpid(), number)
        assert asked == [True]
        assert stop.signal_number == number
        with pytest.raises(InterruptedRunError) as raised:
            os.kill(os.getpid(), number)
        assert raised.value.signal_number == number
    assert asked == [True]
    assert signal.getsignal(number) is before


def test_what_outlives_errors_does_not_outlive_a_signal():
    assert not issubclass(InterruptedRunError, Exception)


def test_outside_training_a_signal_ends_at_once():
    with handlers_kept():
        raise_on_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(InterruptedRunError):
                os.kill(os.getpid(), number)
