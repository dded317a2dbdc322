"""A Ray cluster of several nodes on loopback, with ports and folders of its own, ended process by process."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.e2e.conftest import environment

_START = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
_QUIET = ["--disable-usage-stats", "--object-store-memory", str(128 * 1024 * 1024)]


@contextmanager
def ray_cluster(num_nodes: int, num_cpus: int = 1, dashboard_port: int | None = None) -> Iterator[str]:
    """The address of a cluster with so many CPUs a node, while the block lasts; whoever has the environment may enter.

    Jobs need a dashboard, and one node: nodes on one machine delete each other's working directories.
    """
    with ray_nodes(num_nodes, num_cpus, dashboard_port) as nodes:
        yield nodes.address


class RayNodes:
    """The nodes of a cluster, the first of which is the head; more can be added.

    Attributes:
        address: of the head.
        metrics_ports: port of the endpoint for Prometheus, of each node.
    """

    def __init__(self, num_cpus: int, dashboard_port: int | None) -> None:
        (head,) = _free_ports(1)
        self.address = f"127.0.0.1:{head}"
        self._folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
        self._num_cpus = num_cpus
        dashboard = ["--include-dashboard", "false"]
        if dashboard_port is not None:
            dashboard = ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard_port)]
        self._head = ["--head", "--port", str(head), *dashboard, "--temp-dir", self._folder]
        self._nodes: list[subprocess.Popen] = []
        self.metrics_ports: list[int] = []

    def add(self) -> None:
        """Start one more node and wait until it is there."""
        alive = _alive_nodes(self.address) if self._nodes else 0
        role = ["--address", self.address] if self._nodes else self._head
        names = ["dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"]
        names.append("runtime-env-agent-port")
        free = dict(zip(names, _free_ports(len(names)), strict=True))
        self.metrics_ports.append(free["metrics-export-port"])
        ports = [f"--{name}={port}" for name, port in free.items()]
        command = [*_START, "--node-ip-address", "127.0.0.1", *role, *ports, *_QUIET, "--num-cpus", str(self._num_cpus)]
        self._nodes.append(
            subprocess.Popen(
                command,
                env=environment() | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        _wait_for_nodes(self.address, alive + 1)

    @contextmanager
    def last_one_frozen(self) -> Iterator[None]:
        """The node that was added last does not answer while the block lasts, and its connections stay open."""
        _signal(self._nodes[-1], signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(self._nodes[-1], signal.SIGCONT)

    def end(self) -> None:
        """End all at once: asked to end, a head takes longer than a test should wait for it."""
        for node in reversed(self._nodes):
            _signal(node, signal.SIGKILL)
        for node in self._nodes:
            node.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def ray_nodes(num_nodes: int, num_cpus: int = 1, dashboard_port: int | None = None) -> Iterator[RayNodes]:
    """As `ray_cluster`, for tests that change the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        nodes = RayNodes(num_cpus, dashboard_port)
        try:
            for _ in range(num_nodes):
                nodes.add()
            yield nodes
        finally:
            nodes.end()


def _signal(node: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError):  # a drained node ends by itself
        os.killpg(node.pid, number)


def _alive_nodes(address: str) -> int:
    script = (
        f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR'); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    return int(done.stdout.strip() or 0)


def _wait_for_nodes(address: str, number: int) -> None:
    deadline = time.monotonic() + 90
    while _alive_nodes(address) != number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address}: {number} nodes did not come up")
        time.sleep(1)


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
