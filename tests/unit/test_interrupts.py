import errno
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from sftkey_dist import interrupts
from sftkey_dist.errors import InterruptedRunError, RunLostError
from sftkey_dist.interrupts import (
    SIGNALS,
    handlers_kept,
    interruptible,
    interruptions_kept,
    raise_on_signals,
    stop_gently,
    stopping_gently,
)


@pytest.fixture(autouse=True)
def short_moment(monkeypatch):
    monkeypatch.setattr(interrupts, "_DEBOUNCE_SECONDS", 0.2)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_ends(number):
    asked = []
    before = signal.getsignal(number)
    with stopping_gently(lambda: asked.append(True)) as stop:
        send(number)
        assert asked == [True]
        assert stop.signal_number == number
        time.sleep(0.25)
        with pytest.raises(InterruptedRunError) as raised:
            send(number)
        assert raised.value.signal_number == number
    assert asked == [True]
    assert signal.getsignal(number) is before


def test_signals_of_one_moment_are_one():
    asked = []
    with stopping_gently(lambda: asked.append(True)) as stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            send(number)
        assert (asked, stop.signal_number) == ([True], signal.SIGTERM)


def test_a_signal_ends_at_once_where_nobody_can_be_asked():
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with stopping_gently(fail), pytest.raises(InterruptedRunError):
        send(signal.SIGTERM)


def test_another_thread_can_ask_every_running_block_to_stop_once():
    asked = []
    stop_gently()
    with (
        stopping_gently(lambda: asked.append("outer")) as outer,
        stopping_gently(lambda: asked.append("inner")) as stop,
    ):
        for _ in range(2):
            thread = threading.Thread(target=stop_gently)
            thread.start()
            thread.join()
        assert outer.signal_number == stop.signal_number == signal.SIGTERM
    stop_gently()
    assert sorted(asked) == ["inner", "outer"]


def test_what_outlives_errors_does_not_outlive_a_signal():
    assert not issubclass(InterruptedRunError, Exception)
    assert not issubclass(RunLostError, Exception)


def test_outside_training_a_signal_ends_at_once_and_cleaning_up_is_not_disturbed_by_another():
    with handlers_kept():
        raise_on_signals()
        for number in SIGNALS:
            with pytest.raises(InterruptedRunError):
                send(number)
            send(signal.SIGINT)
            time.sleep(0.25)


def wait_as_ray_does(number: int) -> None:
    """Ray raises an exception of its own in place of the one that it caught."""
    try:
        send(number)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None


def test_a_wait_for_ray_gets_the_error_that_ray_passes_on_and_its_caller_the_one_that_was_meant():
    with handlers_kept():
        raise_on_signals()
        with pytest.raises(InterruptedRunError) as raised:
            interruptible(wait_as_ray_does, signal.SIGTERM)
        assert raised.value.signal_number == signal.SIGTERM
        with pytest.raises(RunLostError, match="gone"):
            interruptible(interrupts.end_at_once, "gone")
        with pytest.raises(ZeroDivisionError):
            interruptible(divmod, 1, 0)
        time.sleep(0.25)
        with pytest.raises(InterruptedRunError):
            send(signal.SIGTERM)


def library_that_fails_if_interrupted() -> None:
    try:
        send(signal.SIGTERM)
    except BaseException:
        raise ZeroDivisionError from None


def library_that_goes_on() -> None:
    with suppress(BaseException):
        send(signal.SIGTERM)


def command_that_says_itself_how_it_was_interrupted() -> None:
    try:
        send(signal.SIGTERM)
    except InterruptedRunError:
        raise SystemExit(1) from None


@pytest.mark.parametrize("call", [library_that_fails_if_interrupted, library_that_goes_on, lambda: send(15)])
def test_what_a_library_makes_of_a_signal_does_not_hide_it(call):
    with handlers_kept():
        raise_on_signals()
        with pytest.raises(InterruptedRunError) as raised, interruptions_kept():
            call()
        assert raised.value.signal_number == signal.SIGTERM


def test_without_a_signal_errors_and_exits_stay_what_they_are():
    with handlers_kept():
        raise_on_signals()
        with pytest.raises(InterruptedRunError):
            send(signal.SIGTERM)
        with pytest.raises(ZeroDivisionError), interruptions_kept():
            raise ZeroDivisionError
        time.sleep(0.25)
        with pytest.raises(SystemExit), interruptions_kept():
            command_that_says_itself_how_it_was_interrupted()
        with interruptions_kept():
            pass


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_an_interrupt_while_libraries_are_imported_shows_no_traceback(seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; from sftkey_dist.__main__ import main; print('x', flush=True); main()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a test in the background ignores
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in said


def test_a_signal_that_nohup_ignores_stays_ignored():
    with handlers_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        raise_on_signals()
        send(signal.SIGHUP)
        with stopping_gently(lambda: None) as stop:
            send(signal.SIGHUP)
        assert stop.signal_number is None


def test_the_exit_of_a_library_that_handles_a_signal_is_an_interruption():
    with pytest.raises(InterruptedRunError) as raised, handlers_kept():
        raise SystemExit(1)  # as Ray's own handler ends a start
    assert raised.value.signal_number == signal.SIGTERM
