"""Where the soak trains: hosts of its own where this machine lets us, else a private cluster of each driver."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.distributed.harness import free_port
from tests.e2e.conftest import environment
from tests.e2e.hosts import THIS_MACHINE, Host, hosts, wait_until
from tests.e2e.test_hosts import NOTICE_LOST_NODES_SOON
from tests.processes import descendants, kill_all, training_workers

_SECONDS_UNNOTICED, _SECONDS_UNTIL_LOST = 2.0, 20.0
_RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block", "--num-cpus", "1"]
_RAY += ["--disable-usage-stats", "--object-store-memory", str(128 * 2**20)]


class PrivateCluster:
    """Every driver starts its own; workers are its descendants."""

    address = "127.0.0.1"
    settings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.environment = environment()

    def faults(self) -> dict[str, Callable[[], bool]]:
        """None of its own."""
        return {}

    def workers(self, driver: int) -> list[int]:
        """Process ids of the training ranks."""
        return training_workers({driver})


class SeveralHosts:
    """A cluster whose ranks lie on two hosts with addresses of their own; drivers and servers are on this machine.

    Attributes:
        address: of this machine.
        environment: of drivers.
        settings: overrides that make a driver use the cluster.
    """

    def __init__(self, there: dict[str, Host], folder: Path) -> None:
        self.address, self._hosts, self._folder = THIS_MACHINE, list(there.values()), folder
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = environment() | NOTICE_LOST_NODES_SOON | secret
        port = free_port()
        self._join = ["--address", f"{self.address}:{port}"]
        self.settings = (
            f"cluster.address={self.address}:{port}",
            "cluster.network_interface=eth0",
            "cluster.wait_for_nodes_seconds=120",
        )
        self._head = self._start_head(port)
        for host in self._hosts:
            _start_node(host, self._join, self.environment, folder)

    def faults(self) -> dict[str, Callable[[], bool]]:
        """What happens to networks and hosts."""
        return {"link cut for two seconds": self._cut_briefly, "link cut, host lost and replaced": self._lose_host}

    def workers(self, driver: int) -> list[int]:
        """Process ids of the training ranks, as this machine sees them."""
        return training_workers({pid for host in self._hosts for pid in host.pids})

    def end(self) -> None:
        """The head node; hosts end with their block."""
        children = descendants(self._head.pid)
        self._head.kill()
        self._head.wait()
        kill_all(children)

    def _start_head(self, port: int) -> subprocess.Popen:
        command = [*_RAY, "--head", "--port", str(port), "--node-ip-address", self.address, "--num-cpus", "0"]
        command += ["--include-dashboard", "false", "--temp-dir", str(self._folder / "ray")]
        log = self._folder / "head.log"
        with log.open("w") as file:
            head = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_until(lambda: "Ray runtime started" in log.read_text(), log, 60)
        return head

    def _cut_briefly(self) -> bool:
        host = random.choice(self._hosts)
        host.cut()
        time.sleep(_SECONDS_UNNOTICED)
        host.mend()
        return True

    def _lose_host(self) -> bool:
        host = random.choice(self._hosts)
        host.cut()
        time.sleep(_SECONDS_UNTIL_LOST)
        host.crash()
        host.mend()
        (self._folder / f"node-{host.address}.log").unlink()  # tells when the node has started
        _start_node(host, self._join, self.environment, self._folder)
        return True


@contextmanager
def several_hosts(folder: Path) -> Iterator[SeveralHosts]:
    """While the block lasts."""
    with hosts("left", "right", and_this_machine=True) as there:
        place = SeveralHosts(there, folder)
        try:
            yield place
        finally:
            place.end()


def signal_one(pids: list[int], number: signal.Signals) -> bool:
    """Send a signal to one of some processes; False when there is none."""
    if not pids:
        return False
    os.kill(random.choice(pids), number)
    return True


def _start_node(host: Host, role: list[str], env: dict[str, str], folder: Path) -> None:
    log = folder / f"node-{host.address}.log"
    host.start([*_RAY, *role, "--node-ip-address", host.address], env, log)
    wait_until(lambda: "Ray runtime started" in log.read_text(), log, 120)
