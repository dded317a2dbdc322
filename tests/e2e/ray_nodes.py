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
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import environment

_START = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
_QUIET = ["--disable-usage-stats", "--object-store-memory", str(128 * 1024 * 1024)]


@contextmanager
def ray_cluster(num_nodes: int, num_cpus: int = 1, dashboard_port: int | None = None) -> Iterator[str]:
    """The address of a cluster with so many CPUs a node, while the block lasts; whoever has the environment may enter.

    Jobs need a dashboard, and one node: nodes on one machine delete each other's working directories.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with _nodes(num_nodes, num_cpus, dashboard_port) as address:
            yield address


@contextmanager
def _nodes(num_nodes: int, num_cpus: int, dashboard_port: int | None) -> Iterator[str]:
    head, *agents = _free_ports(1 + 4 * num_nodes)
    address = f"127.0.0.1:{head}"
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
    nodes = []
    dashboard = ["--include-dashboard", "false"]
    if dashboard_port is not None:
        dashboard = ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard_port)]
    try:
        for number in range(num_nodes):
            role = (
                ["--address", address] if number else ["--head", "--port", str(head), *dashboard, "--temp-dir", folder]
            )
            names = ["dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"]
            names.append("runtime-env-agent-port")
            ports = [f"--{name}={agents[4 * number + i]}" for i, name in enumerate(names)]
            command = [*_START, "--node-ip-address", "127.0.0.1", *role, *ports, *_QUIET, "--num-cpus", str(num_cpus)]
            nodes.append(
                subprocess.Popen(
                    command,
                    env=environment() | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            _wait_for_nodes(address, number + 1)
        yield address
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGTERM)
        for node in nodes:
            try:
                node.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_nodes(address: str, number: int) -> None:
    script = (
        f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR'); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=60
        )
        if done.stdout.strip() == str(number):
            return
        time.sleep(1)
    raise TimeoutError(f"{address}: {number} nodes did not come up: {done.stderr[-500:]}")


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
