"""Several hosts on one machine: network namespaces on a bridge of their own, each with its own processes and files.

Every host has an address on ``eth0``, a host name that the others know, private /tmp/ray and /dev/shm, and processes
that end with it. Folders elsewhere are shared, as on a cluster file system.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

THIS_MACHINE = "10.77.0.254"
_INSIDE = """
set -e
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
mount -t tmpfs tmpfs /dev/shm
mount --bind "$2" /etc/hosts
hostname "$1"
shift 2
exec "$@"
"""


def can_make_hosts() -> bool:
    """Whether this machine lets us."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    made = subprocess.run(["ip", "netns", "add", f"sftkey-try-{os.getpid()}"], capture_output=True)
    if made.returncode:
        return False
    inside = ["ip", "netns", "exec", f"sftkey-try-{os.getpid()}", "unshare", "--mount", "--uts", "--pid", "--fork"]
    works = subprocess.run([*inside, "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    subprocess.run(["ip", "netns", "del", f"sftkey-try-{os.getpid()}"], check=True)
    return works.returncode == 0


class Host:
    """One namespace.

    Attributes:
        address: on ``eth0``.
    """

    def __init__(self, name: str, number: int, switch: str, names: Path) -> None:
        self._name, self._switch, self._names = name, switch, names
        self.address = f"10.77.0.{number}"
        self._namespace, self._port = f"{switch}-{name}", f"port{number}"
        _ip("netns", "add", self._namespace)
        _ip("-n", switch, "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("-n", switch, "link", "set", self._port, "master", "bridge", "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", self._namespace, "link", "set", link, "up")
        self._processes: list[subprocess.Popen] = []

    def start(self, command: Sequence[object], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
        """Start a command that ends with the host, or when it is killed, with all that it started."""
        isolation = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = ["ip", "netns", "exec", self._namespace, *isolation, "bash", "-c", _INSIDE, "bash", self._name]
        inside.append(str(self._names))
        with log.open("a") as file:
            process = subprocess.Popen(
                [*inside, *map(str, command)],
                env=dict(environment),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def cut(self) -> None:
        """Pull the plug: packets vanish, no connection is reset."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        """Put the plug back."""
        _ip("-n", self._switch, "link", "set", self._port, "up")

    @property
    def pids(self) -> list[int]:
        """Of the commands that were started, as this machine sees them."""
        return [process.pid for process in self._processes if process.poll() is None]

    def crash(self) -> None:
        """End its processes at once."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def end(self) -> None:
        """End its processes and remove it."""
        self.crash()
        _ip("netns", "del", self._namespace)


@contextmanager
def hosts(*names: str, and_this_machine: bool = False) -> Iterator[dict[str, Host]]:
    """Hosts that reach each other, and nothing else, while the block lasts; this machine too if asked."""
    switch = f"sftkey{os.getpid()}"
    made: dict[str, Host] = {}
    _ip("netns", "add", switch)
    with NamedTemporaryFile("w", prefix="sftkey-hosts-") as addresses:
        try:
            _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", switch, "link", "set", "bridge", "up")
            for number, name in enumerate(names, start=1):
                made[name] = Host(name, number, switch, Path(addresses.name))
            lines = [f"{host.address} {name}\n" for name, host in made.items()]
            addresses.writelines(["127.0.0.1 localhost\n", *lines])
            addresses.flush()
            if and_this_machine:
                _plug_in(switch)
            yield made
        finally:
            for host in made.values():
                host.end()
            _ip("netns", "del", switch)


def _plug_in(switch: str) -> None:
    _ip("-n", switch, "link", "add", "here", "type", "veth", "peer", "name", switch, "netns", str(os.getpid()))
    _ip("-n", switch, "link", "set", "here", "master", "bridge", "up")
    _ip("addr", "add", f"{THIS_MACHINE}/24", "dev", switch)
    _ip("link", "set", switch, "up")


def wait_until(condition, log: Path, seconds: float) -> None:
    """Poll; a log is shown when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-5000:]
        time.sleep(0.3)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
