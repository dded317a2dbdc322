"""One command at a time writes to a run directory."""

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sftkey_dist.errors import ConfigError
from sftkey_dist.files import folder_kept_if_used
from sftkey_dist.interrupts import end_at_once
from sftkey_dist.run_dir.paths import RunDir

_SECONDS_BETWEEN_BEATS = 5.0
_STALE_AFTER_SECONDS = 60.0
"""Without a beat for so long, a holder on another machine is taken for dead."""


@dataclass(frozen=True)
class _Holder:
    """What a lock file says of the process that holds it; of one that cannot be read, that nothing is known.

    Attributes:
        host: its name.
        processes: what tells the process ids of this machine, or container, from those of others.
        pid: process id.
        started: when the process started, in the kernel's ticks.
    """

    host: str = "?"
    processes: str = ""
    pid: int | str = "?"
    started: str = ""


@contextmanager
def locked_run(run: RunDir) -> Iterator[None]:
    """Let no other command write to a run directory while the block lasts; it is made, and removed if it stays empty.

    Raises:
        ConfigError: another command is writing to it, or nobody can.
        RunLostError: as `locked`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(folder_kept_if_used(run.path))
            held.enter_context(locked(run.lock))
        except OSError as error:
            raise ConfigError(f"run_dir={run.path}: cannot be written to ({error.strerror})") from error
        yield


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file while the block lasts; one that a dead process left is taken over.

    Raises:
        ConfigError: another process holds it, or what lies there is no lock.
        RunLostError: it was lost meanwhile, with its folder or to another process.
    """
    content = _take(lock)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(lock, content, ended), name="run-lock", daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        if _holds(lock, content):
            lock.unlink(missing_ok=True)


def _take(lock: Path) -> bytes:
    """A hard link either makes the lock with its content, or fails: on network file systems too."""
    content = json.dumps(asdict(_myself())).encode()
    with tempfile.NamedTemporaryFile(dir=lock.parent, prefix=f"{lock.name}.") as mine:
        mine.write(content)
        mine.flush()
        while True:
            with suppress(FileExistsError):
                os.link(mine.name, lock)
                return content
            with suppress(FileNotFoundError):  # it was released just now
                _remove_if_stale(lock, Path(mine.name))


def _remove_if_stale(lock: Path, mine: Path) -> None:
    if not stat.S_ISREG(lock.lstat().st_mode):  # reading a pipe would wait for ever
        raise ConfigError(f"{lock}: no file; a lock lies there while a command is at work: remove what is there now")
    content = lock.read_bytes()
    holder = _parse(content)
    silent_seconds = _now(mine) - lock.stat().st_mtime
    if not _is_stale(holder, silent_seconds):
        raise ConfigError(
            f"{lock.parent}: another command is at work there, process {holder.pid} on "
            f"{holder.host}, last heard of {max(0.0, silent_seconds):.0f} s ago; wait for it, stop it, or "
            f"choose another run_dir"
        )
    taken = mine.with_name(f"{mine.name}.stale")
    lock.rename(taken)  # of several that find it stale one succeeds
    try:
        if taken.read_bytes() != content:  # it was faster still: this is the lock of the one that succeeded
            with suppress(FileExistsError):
                os.link(taken, lock)
    finally:
        taken.unlink(missing_ok=True)


def _is_stale(holder: _Holder, silent_seconds: float) -> bool:
    me = _myself()
    if (holder.host, holder.processes) == (me.host, me.processes):
        return _started(holder.pid) != holder.started
    return abs(silent_seconds) > _STALE_AFTER_SECONDS  # a beat sets the time: one in the future is none


def _myself() -> _Holder:
    pid = os.getpid()
    # Containers have process ids, and perhaps host names, in common.
    processes = f"{_read('/proc/sys/kernel/random/boot_id')} {os.readlink('/proc/self/ns/pid')}"
    return _Holder(socket.gethostname(), processes, pid, _started(pid))


def _started(pid: int | str) -> str:
    """When a process started, in the kernel's ticks; "" when there is none: its id may be another one's by now."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # after the name, which may hold anything
    return fields[19] if fields else ""


def _read(file: str) -> str:
    with suppress(OSError):
        return Path(file).read_text().strip()
    return ""


def _parse(content: bytes) -> _Holder:
    """Who holds a lock; a file that says something else, as another version may, is of a process that is not known."""
    with suppress(ValueError, TypeError):
        return _Holder(**json.loads(content))
    return _Holder()


def _now(mine: Path) -> float:
    """By the clock of the file system, which is that of the lock."""
    os.utime(mine)
    return mine.stat().st_mtime


def _beat(lock: Path, content: bytes, ended: threading.Event) -> None:
    """A process that was suspended for long may find that another one has taken its lock: it must end at once."""
    while not ended.wait(_SECONDS_BETWEEN_BEATS):
        problem = _loss(lock, content)
        if problem:
            end_at_once(problem)
            return
        with suppress(OSError):
            os.utime(lock)


def _loss(lock: Path, content: bytes) -> str:
    """How the lock was lost; "" where it is held, or cannot be read just now."""
    try:
        found = lock.read_bytes()
    except FileNotFoundError:
        if not lock.parent.is_dir():
            return f"{lock.parent}: the run directory was removed while this command was at work; what it held is lost"
        return f"{lock}: was removed while this command was at work, so that another one may be; run it again"
    except OSError:
        return ""
    if found == content:
        return ""
    holder = _parse(found)
    return (
        f"{lock.parent}: process {holder.pid} on {holder.host} has taken the run over, as this "
        f"one gave no sign of life for {_STALE_AFTER_SECONDS:.0f} s; this one ends and leaves the run to it"
    )


def _holds(lock: Path, content: bytes) -> bool:
    with suppress(OSError):
        return lock.read_bytes() == content
    return False
