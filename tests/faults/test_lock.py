"""Two commands on one run directory: the second refuses, and takes over what a dead one left."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sftkey_dist.errors import ConfigError
from sftkey_dist.run_dir.lock import locked

pytestmark = pytest.mark.single_process
HOLDER = """
import sys, time
from pathlib import Path
from sftkey_dist.run_dir.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def holder(lock):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_command_is_refused_with_the_first_ones_process_and_released_afterwards(lock, holder):
    with (
        pytest.raises(ConfigError, match=f"process {holder.pid} on .*, which last updated its lock 0 s ago"),
        locked(lock),
    ):
        pass
    assert list(lock.parent.iterdir()) == [lock], "the refused one leaves nothing"
    holder.send_signal(signal.SIGINT)
    holder.wait()
    with locked(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


def test_the_lock_of_a_killed_command_is_taken_over_at_once(lock, holder):
    holder.kill()
    holder.wait()
    assert lock.exists()
    with locked(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_a_file_system_without_hard_links_has_locks_too(lock, holder, monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "link", refuses)
    with pytest.raises(ConfigError, match=f"process {holder.pid} on "), locked(lock):
        pass
    holder.kill()
    holder.wait()
    with locked(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on "), locked(lock):
            pass
    assert list(lock.parent.iterdir()) == []


def test_a_process_that_has_the_number_of_a_dead_holder_is_not_it(lock, holder):
    content = json.loads(lock.read_text())
    holder.kill()
    holder.wait()
    lock.write_text(json.dumps(content | {"pid": os.getppid()}))
    with locked(lock):
        pass


def test_another_machines_lock_holds_as_long_as_it_beats(lock, holder):
    content = json.loads(lock.read_text())
    holder.kill()
    holder.wait()
    elsewhere = content | {"host": "elsewhere", "processes": "other"}
    lock.write_text(json.dumps(elsewhere))
    with pytest.raises(ConfigError, match="on elsewhere"), locked(lock):
        pass
    os.utime(lock, (time.time() - 61,) * 2)
    with locked(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_a_lock_that_another_one_has_taken_is_left_to_it(lock):
    with locked(lock):
        lock.write_text("another one's")
    assert lock.read_text() == "another one's"


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_lock_that_says_nothing_is_held_until_it_is_old(lock, content):
    lock.write_text(content)
    with pytest.raises(ConfigError, match=r"process \? on \?"), locked(lock):
        pass
    os.utime(lock, (time.time() - 61,) * 2)
    with locked(lock):
        pass


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        ('Path(sys.argv[1]).write_text(\'{"pid": 7, "host": "elsewhere"}\')', "process 7 on elsewhere has taken"),
        ("Path(sys.argv[1]).unlink()", "was removed while this command was running, so another"),
        ("shutil.rmtree(Path(sys.argv[1]).parent)", "the run directory was removed while this command was running"),
    ],
)
def test_a_command_that_lost_its_lock_or_its_folder_ends_at_once(tmp_path, lose, said):
    script = f"""
import shutil, sys, time
from pathlib import Path
from sftkey_dist.errors import RunLostError
from sftkey_dist.interrupts import raise_on_signals
from sftkey_dist.run_dir import lock
lock._SECONDS_BETWEEN_BEATS = 0.2
raise_on_signals()
try:
    with lock.locked(Path(sys.argv[1])):
        {lose}
        time.sleep(60)
except RunLostError as error:
    sys.exit(f"lost: {{error}}")
"""
    folder = tmp_path / "run"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / ".lock")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert f"{said}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_of_another_machine_that_is_dated_in_the_future_is_no_beat(lock):
    lock.write_text(json.dumps({"host": "elsewhere", "processes": "other", "pid": 1}))
    os.utime(lock, (time.time() + 3600,) * 2)
    with locked(lock):
        pass


def test_what_is_no_file_is_no_lock(lock):
    os.mkfifo(lock)
    with pytest.raises(ConfigError, match="not a regular file"), locked(lock):
        pass
