"""The lock of a run directory, so that only one command writes to it at a time."""

import errno
import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sftkey_dist.errors import ConfigError
from sftkey_dist.files import folder_kept_if_used, remove_scratch
from sftkey_dist.interrupts import end_at_once
from sftkey_dist.run_dir.paths import RunDir

_SECONDS_BETWEEN_BEATS = 5.0
_STALE_AFTER_SECONDS = 60.0
"""A holder on another machine that has not updated its lock for this long is considered dead."""

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class _Holder:
    """The process that holds a lock, as its lock file states it. The defaults are for an unreadable file.

    Attributes:
        host: host name.
        processes: identifies the process-id namespace of the machine or container.
        pid: process id.
        started: start time of the process, in kernel ticks.
    """

    host: str = "?"
    processes: str = ""
    pid: int | str = "?"
    started: str = ""


@contextmanager
def locked_run(run: RunDir) -> Iterator[None]:
    """Keep other commands from writing to a run directory while the block runs.

    The directory is created if necessary, and removed if it stays empty.

    Raises:
        ConfigError: another command is writing to it, or it is not writable.
        RunLostError: see `locked`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(folder_kept_if_used(run.path))
            held.enter_context(locked(run.lock))
        except OSError as error:
            problem = "it is a file" if run.path.is_file() else f"the directory is not writable ({error.strerror})"
            raise ConfigError(f"run_dir={run.path}: {problem}") from error
        _sweep(run)
        yield


def _sweep(run: RunDir) -> None:
    """Remove what killed commands have left. A study or a tuning has folders of other runs, which may be under way."""
    remove_scratch(run.path, at_any_depth=False)
    for name in ("stages", "evaluation", "samples"):
        remove_scratch(run.path / name)


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file while the block runs. The lock of a dead process is taken over.

    Raises:
        ConfigError: another process holds the lock, or the path is not a lock file.
        RunLostError: the lock was lost: its folder was removed, or another process took it over.
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


@dataclass(frozen=True)
class Writer:
    """The live command that holds a lock.

    Attributes:
        host: host name.
        pid: process id.
        beat: when it last updated the lock, by the clock of the file system, in seconds since the epoch.
    """

    host: str
    pid: int | str
    beat: float


def find_writer(lock: Path) -> Writer | None:
    """The live command that holds a lock, found without touching it; None if there is none."""
    with suppress(OSError):
        if stat.S_ISREG(lock.lstat().st_mode):
            holder, beat = _parse(lock.read_bytes()), lock.stat().st_mtime
            return None if _is_stale(holder, time.time() - beat) else Writer(holder.host, holder.pid, beat)
    return None


def _take(lock: Path) -> bytes:
    """Take the lock."""
    content = json.dumps(asdict(_myself())).encode()
    with tempfile.NamedTemporaryFile(dir=lock.parent, prefix=f"{lock.name}.") as mine:
        mine.write(content)
        mine.flush()
        while True:
            with suppress(FileExistsError):
                _create(lock, Path(mine.name))
                return content
            with suppress(FileNotFoundError):  # it has just been released
                _remove_if_stale(lock, Path(mine.name))


def _create(lock: Path, source: Path) -> None:
    """Create the lock file with the content of another file, unless there is a lock file.

    Creating a hard link is atomic, on network file systems too, and includes the content. Some file systems, such as
    those of object stores, have no hard links. There the content is written after the file was created, and until then
    the lock names no holder.

    Raises:
        FileExistsError: There is one.
    """
    try:
        os.link(source, lock)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        with lock.open("xb") as file:
            file.write(source.read_bytes())


def _remove_if_stale(lock: Path, mine: Path) -> None:
    if not stat.S_ISREG(lock.lstat().st_mode):  # reading a pipe would block forever
        raise ConfigError(f"{lock}: not a regular file, although running commands put their lock there; remove it")
    content = lock.read_bytes()
    holder = _parse(content)
    silent_seconds = _now(mine) - lock.stat().st_mtime
    if not _is_stale(holder, silent_seconds):
        raise ConfigError(
            f"{lock.parent}: another command is using this run directory: process {holder.pid} on "
            f"{holder.host}, which last updated its lock {max(0.0, silent_seconds):.0f} s ago; wait for it, stop it, "
            f"or choose another run_dir"
        )
    taken = mine.with_name(f"{mine.name}.stale")
    lock.rename(taken)  # only one of several processes that find the lock stale succeeds
    try:
        if taken.read_bytes() != content:  # another process was faster, and this is its new lock: put it back
            with suppress(FileExistsError):
                _create(lock, taken)
    finally:
        taken.unlink(missing_ok=True)


def _is_stale(holder: _Holder, silent_seconds: float) -> bool:
    me = _myself()
    if (holder.host, holder.processes) == (me.host, me.processes):
        return _started(holder.pid) != holder.started
    return abs(silent_seconds) > _STALE_AFTER_SECONDS  # a time in the future was not set by a live holder


def _myself() -> _Holder:
    pid = os.getpid()
    # Containers may share process ids and host names.
    processes = f"{_read('/proc/sys/kernel/random/boot_id')} {os.readlink('/proc/self/ns/pid')}"
    return _Holder(socket.gethostname(), processes, pid, _started(pid))


def _started(pid: int | str) -> str:
    """Start time of a process in kernel ticks, or "" if there is none. It detects a process id that was reused."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # after the name, which may contain anything
    return fields[19] if fields else ""


def _read(file: str) -> str:
    with suppress(OSError):
        return Path(file).read_text().strip()
    return ""


def _parse(content: bytes) -> _Holder:
    """The holder of a lock; an unknown one if the file has another format, as another version may write."""
    with suppress(ValueError, TypeError):
        return _Holder(**json.loads(content))
    return _Holder()


def _now(mine: Path) -> float:
    """The current time by the clock of the file system, with which the lock is time-stamped too."""
    os.utime(mine)
    return mine.stat().st_mtime


def _beat(lock: Path, content: bytes, ended: threading.Event) -> None:
    """Update the lock regularly. A process that was suspended and has lost its lock meanwhile stops at once."""
    while not ended.wait(_SECONDS_BETWEEN_BEATS):
        problem = _loss(lock, content)
        if problem:
            end_at_once(problem)
            return
        with suppress(OSError):
            os.utime(lock)


def _loss(lock: Path, content: bytes) -> str:
    """How the lock was lost, or "" if it is still held or cannot be read at the moment."""
    try:
        found = lock.read_bytes()
    except FileNotFoundError:
        if not lock.parent.is_dir():
            return f"{lock.parent}: the run directory was removed while this command was running; its content is lost"
        return f"{lock}: it was removed while this command was running, so another may have started; run it again"
    except OSError:
        return ""
    if found == content:
        return ""
    holder = _parse(found)
    return (
        f"{lock.parent}: process {holder.pid} on {holder.host} has taken over the run, because this "
        f"process did not update its lock for {_STALE_AFTER_SECONDS:.0f} s; this process stops"
    )


def _holds(lock: Path, content: bytes) -> bool:
    with suppress(OSError):
        return lock.read_bytes() == content
    return False
