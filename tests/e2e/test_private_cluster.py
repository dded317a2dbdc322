"""A command's own Ray cluster, as another user of the machine would meet it, and one that is not there."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ENTRY_POINT, environment
from tests.processes import command_of, descendants, is_alive

LISTENING = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def sockets_of(processes: set[int]) -> set[str]:
    found = set()
    for process in processes:
        try:
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
        except OSError:
            continue
    return found


def listening_addresses(processes: set[int]) -> dict[str, str]:
    """Address and port in hexadecimal, by inode, of the processes' TCP sockets, as the kernel tells every user."""
    sockets = sockets_of(processes)
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *others = line.split()
            if state == LISTENING and others[5] in sockets:
                found[others[5]] = local
    return found


def test_a_run_listens_on_loopback_alone_behind_a_token_of_its_own(tmp_path, tiny_config):
    """With authentication turned off in the environment, a token that others know, and a long TMPDIR."""
    long = tmp_path / "a_rather_long_scratch_directory_name" / "job_1234567890" / ("t" * 40)
    long.mkdir(parents=True)
    names = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "0" * 64, "TMPDIR": str(long)}
    small = ("strategies=[sft-tag]", "tracking.enabled=false", "optimization.max_steps=2")
    before = set(Path("/tmp").glob("ray-*"))
    found_by_others: list[str] = []
    process = subprocess.Popen(
        [*ENTRY_POINT, "train", str(tiny_config), *small],
        cwd=tmp_path,
        env=environment() | names,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen: dict[str, str] = {}
    folders, tokens = set(), set()
    while process.poll() is None:
        tree = {process.pid} | descendants(process.pid)
        seen |= listening_addresses(tree)
        for folder in set(Path("/tmp").glob("ray-*")) - before:
            token = folder / "token"
            if str(folder) in command_lines(tree) and token.is_file() and token.stat().st_size:
                folders.add((folder, stat.S_IMODE(folder.stat().st_mode)))
                tokens.add((token.read_text(), stat.S_IMODE(token.stat().st_mode)))
        if tokens and not found_by_others and (port := port_of_cluster(tree)):
            found_by_others = [*read_by_nobody([folder / "token"], tree), said_to_a_stranger(port)]
        time.sleep(0.5)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert len(seen) > 10, "gcs_server, raylet, agents, dashboard, workers, rank 0's store"
    assert {address.partition(":")[0] for address in seen.values()} <= LOOPBACK, seen
    (folder, mode), (token, token_mode) = *folders, *tokens
    assert (mode, token_mode) == (0o700, 0o600)
    assert len(token) == 64
    assert token != "0" * 64
    assert not folder.exists(), "it goes with the cluster"
    *read, said = found_by_others
    assert read == [], "another user reads neither the token nor the environment that names it"
    assert said, "whoever has another token is told that nobody answers"


def test_one_cluster_that_was_started_ahead_serves_every_connection_of_a_command():
    script = """
import os, ray
from sftkey_dist.cluster.connection import connected
from sftkey_dist.cluster.host import starting_ahead
from sftkey_dist.config.cluster import ClusterConfig

used = []
with starting_ahead(ClusterConfig(), 2):
    for _ in range(2):
        with connected(ClusterConfig(), 2):
            used.append((ray.get_runtime_context().gcs_address, ray.get(ray.remote(lambda: os.getppid()).remote())))
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
        assert not ray.is_initialized()
    (address, raylet), again = used
    assert again == (address, raylet), used
assert not os.path.exists(f"/proc/{raylet}")
"""
    subprocess.run([sys.executable, "-c", script], env=without_ray(), check=True, timeout=120)


def test_a_command_that_is_killed_leaves_no_process_and_no_folder():
    """Although a process that it has forked lives on, and holds the cluster's input open."""
    script = """
import os, time
from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig

with connected(ClusterConfig(), 1):
    forked = os.fork()
    if forked:
        print(forked, os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=without_ray(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        forked, token = process.stdout.readline().split()
        rays = descendants(process.pid) - {int(forked)}
        assert len(rays) >= 5, "the host, gcs_server, raylet and two agents"
        process.kill()
        deadline = time.monotonic() + 30
        while (left := [ray for ray in rays if is_alive(ray)]) or Path(token).parent.exists():
            assert time.monotonic() < deadline, command_lines(set(left))
            time.sleep(0.2)
        os.kill(int(forked), signal.SIGKILL)


def test_a_cluster_that_is_up_and_not_used_leaves_nothing_and_one_that_died_is_one_line():
    script = """
import os, select, signal, time
from pathlib import Path
from sftkey_dist.cluster.connection import connected
from sftkey_dist.cluster.host import host_ahead, starting_ahead
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.errors import ConfigError
from tests.processes import command_of, descendants, is_alive

def wait_until_up():
    host = host_ahead(1)
    select.select([host._process.stdout], [], [], 60)
    return Path(host.environment["RAY_AUTH_TOKEN_PATH"]).parent, descendants(os.getpid())

with starting_ahead(ClusterConfig(), 1):
    folder, rays = wait_until_up()
    assert len(rays) >= 5, [command_of(ray) for ray in rays]
time.sleep(1)
assert not list(filter(is_alive, rays)), [command_of(ray) for ray in rays]
assert not folder.exists()

with starting_ahead(ClusterConfig(), 1):
    folder, rays = wait_until_up()
    (raylet,) = [ray for ray in rays if command_of(ray)[0].endswith("/raylet")]
    os.kill(raylet, signal.SIGKILL)
    time.sleep(4)
    try:
        with connected(ClusterConfig(), 1):
            pass
    except ConfigError as error:
        print(error)
assert not list(filter(is_alive, rays))
assert not folder.exists()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=without_ray(), stdout=subprocess.PIPE, check=True, timeout=120, text=True
    )
    assert done.stdout.startswith("the private Ray cluster did not start (")
    assert done.stdout.count("\n") == 1


def without_ray() -> dict[str, str]:
    return {name: value for name, value in environment().items() if not name.startswith("RAY_")}


def port_of_cluster(processes: set[int]) -> str:
    found = re.search(r"--gcs-address=[\d.]+:(\d+)", command_lines(processes))
    return found[1] if found else ""


def read_by_nobody(files: list[Path], processes: set[int]) -> list[str]:
    """What an ordinary user can read of files, and of the environments of processes."""
    if os.geteuid() != 0:
        return []
    environments = [f"/proc/{process}/environ" for process in processes]
    command = ["cat", *map(str, files), *environments]
    done = subprocess.run(command, capture_output=True, text=True, user="nobody", group="nogroup", extra_groups=[])
    return [done.stdout] if done.stdout else []


def said_to_a_stranger(port: str) -> str:
    stranger = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "1" * 64}
    command = [sys.executable, "-m", "sftkey_dist.cluster.probe", f"127.0.0.1:{port}"]
    return subprocess.run(command, env=environment() | stranger, capture_output=True, text=True, timeout=60).stdout


def command_lines(processes: set[int]) -> str:
    return "\n".join(" ".join(command_of(process)) for process in processes)


def test_a_signal_ends_the_wait_for_what_is_no_cluster(tmp_path, tiny_config):
    with socket.create_server(("", 0)) as silent:  # Ray takes 127.0.0.1 for the address of this node
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [*ENTRY_POINT, "train", str(tiny_config), f"cluster.address={address}"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
        silent.settimeout(300)
        silent.accept()[0].close()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=15)
    assert process.returncode == 128 + signal.SIGTERM, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_an_actor_at_once(tmp_path, number):
    """Evaluation and judges spend most of their time in such a wait, in which Ray calls the handlers of signals."""
    script = """
import sys, time
import ray
from sftkey_dist.cli.exits import user_errors_printed
from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.evaluation.generation.spread import spread
from sftkey_dist.interrupts import raise_on_signals

class Sleeper:
    def sleep(self, seconds):
        time.sleep(seconds)

raise_on_signals()
with user_errors_printed(), connected(ClusterConfig(num_workers=1), 1):
    actor = ray.remote(Sleeper).remote()
    ray.get(actor.sleep.remote(0))
    print("waiting", flush=True)
    list(spread([actor], lambda actor, seconds: actor.sleep.remote(seconds), [600], least_seconds=600))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    assert process.stdout is not None
    assert any(line == "waiting\n" for line in process.stdout)
    time.sleep(2)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said
    assert "interrupted; run the same command again" in said
    assert "Traceback" not in said
