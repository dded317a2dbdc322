"""Which cluster is used, and whether it may be."""

import os
import resource
import signal
import socket
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private import ray_constants

from sftkey_dist import machine
from sftkey_dist.cluster import connection, host, private
from sftkey_dist.cluster.connection import connected, idle_in_words
from sftkey_dist.cluster.gate import NamedCluster, named_cluster
from sftkey_dist.cluster.place import place_that_reaches
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.errors import ConfigError, TrainingError
from sftkey_dist.training.workers import launch


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("waits", [False, True])
def test_nodes_that_an_autoscaler_was_asked_for_are_released_by_whoever_asked(monkeypatch, waits):
    asked, rooms = [], iter([0, 0, 2, 2])
    monkeypatch.setattr(connection, "_resolved", lambda named: "head:6379")
    monkeypatch.setattr(connection, "_require_answer", lambda *_: None)
    monkeypatch.setattr(connection, "_room_for", lambda needs: next(rooms))
    monkeypatch.setattr(connection, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(connection, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    cluster = ClusterConfig(wait_for_nodes_seconds=30, allow_unauthenticated=True)
    with connection._joined(NamedCluster("head:6379", "cluster.address"), cluster):
        if waits:
            connection.wait_for_room(cluster, 2)
    assert asked == ([[{"CPU": 1}] * 2, []] if waits else [])


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        (None, "", None),
        (None, "local", None),
        ("local", "", None),
        ("local", "10.0.0.1:6379", None),
        ("auto", "", ("auto", "cluster.address")),
        ("auto", "10.0.0.1:6379", ("10.0.0.1:6379", "RAY_ADDRESS")),
        (None, "10.0.0.1:6379", ("10.0.0.1:6379", "RAY_ADDRESS")),
        ("10.0.0.2:6379", "10.0.0.1:6379", ("10.0.0.2:6379", "cluster.address")),
    ],
)
def test_the_address_has_one_source(monkeypatch, address, environment, expected):
    monkeypatch.setenv("RAY_ADDRESS", environment)
    named = named_cluster(ClusterConfig(address=address))
    assert (named and (named.address, named.source)) == expected


def test_workers_that_memory_cannot_hold_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(host, "free_memory_bytes", lambda: 20 * 2**30)
    monkeypatch.setattr(connection, "private_cluster", lambda num_cpus: pytest.fail("it was started"))
    told = r"64 workers need at least 32 GiB of memory on this machine, which has 20\.0 GiB"
    with pytest.raises(ConfigError, match=told), connected(ClusterConfig(num_workers=64), 64):
        pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("me:hunter2@10.0.0.1:6379", "RAY_ADDRESS must not contain credentials"),
        ("http://10.0.0.1:8265", "RAY_ADDRESS=http://10.0.0.1:8265: give the host and port of a cluster"),
        ("ray://10.0.0.1:10001", "give the host and port of a cluster"),
        ("10.0.0.1:6379", "RAY_ADDRESS=10.0.0.1:6379: anyone who can reach a Ray cluster can run code on it"),
        ("nonsense", "RAY_ADDRESS=nonsense: no Ray cluster answers there"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
        ("127.0.0.1:1", "RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_what_cannot_be_joined_is_one_line(monkeypatch, address, message):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError) as error, connected(ClusterConfig(), 1):
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("state", "free", "said"),
    [
        ("PENDING", {"CPU": 40.0}, "other work uses 16 of 16 accelerators; the workers start when enough are free"),
        ("PENDING", {"CPU": 40.0, "GPU": 8.0}, ""),
        ("CREATED", {"CPU": 40.0}, ""),
    ],
    ids=["busy", "free", "placed"],
)
def test_workers_that_wait_for_accelerators_of_others_are_said_to(monkeypatch, state, free, said):
    monkeypatch.setattr(connection, "placement_group_table", lambda: {"a": {"state": state}})
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 64.0, "GPU": 16.0})
    monkeypatch.setattr("ray.available_resources", lambda: free)
    assert connection.in_use_in_words(ClusterConfig(num_workers=8, gpus_per_worker=1), 8) == said


def test_a_cluster_that_is_still_starting_is_waited_for(monkeypatch, capsys):
    refusals = iter([ConnectionRefusedError(111, "refused"), ConnectionRefusedError(111, "refused"), None])
    monkeypatch.setattr("sftkey_dist.cluster.connection.refusal_of", lambda address: next(refusals))
    monkeypatch.setattr("sftkey_dist.cluster.connection._POLL_SECONDS", 0.0)
    monkeypatch.setattr("sftkey_dist.cluster.connection._MAX_SECONDS_TO_ANSWER", 0.01)
    settings = ClusterConfig(address="127.0.0.1:1", wait_for_nodes_seconds=60)
    with pytest.raises(ConfigError, match="nothing answered within"), connected(settings, 1):
        pass
    assert next(refusals, "none is left") == "none is left"
    assert capsys.readouterr().out.count("waiting up to 60 s for the cluster at ") == 1


def test_an_address_that_cannot_be_one_is_not_waited_for():
    settings = ClusterConfig(address="127.0.0.1:99999", wait_for_nodes_seconds=600)
    with pytest.raises(ConfigError, match="no Ray cluster answers there"), connected(settings, 1):
        pass


def test_actors_that_ask_a_server_on_loopback_run_on_the_drivers_node(monkeypatch):
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "ab" * 28))
    placed = place_that_reaches("http://127.0.0.1:8000/v1")["scheduling_strategy"]
    assert vars(placed).items() >= {"node_id": "ab" * 28, "soft": False}.items()
    assert place_that_reaches("https://judge.example.org/v1") == {}


def test_what_is_no_cluster_is_named_in_good_time(monkeypatch):
    monkeypatch.setattr("sftkey_dist.cluster.connection._MAX_SECONDS_TO_ANSWER", 1.0)
    with socket.create_server(("", 0)) as silent:  # Ray takes 127.0.0.1 for the address of this node
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        message = f"cluster.address={address}: no Ray cluster answers there .the port is open, but nothing answered"
        with pytest.raises(ConfigError, match=message), connected(ClusterConfig(address=address), 1):
            pass


def test_a_token_or_ones_word_opens_the_gate_to_other_machines(monkeypatch):
    named = named_cluster(ClusterConfig(address="10.0.0.1:6379"))
    with pytest.raises(ConfigError, match=r"set cluster\.allow_unauthenticated=true"):
        named.require_token("set cluster.allow_unauthenticated=true", "10.0.0.1:6379")
    named.require_token("", "127.0.0.1:6379")
    NamedCluster("localhost:6379", "RAY_ADDRESS").require_token("")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    named.require_token("", "10.0.0.1:6379")


def test_a_long_tmpdir_is_passed_over(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 90)))
    folder = host._make_folder()
    try:
        assert len(os.fsencode(folder)) < 40
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(ConfigError, match="set TMPDIR to a path of at most 24 characters"):
        host._make_folder()


def nodes_with_cpus(monkeypatch, *cpus):
    nodes = [{"Alive": True, "NodeID": str(number), "Resources": {"CPU": float(n)}} for number, n in enumerate(cpus)]
    monkeypatch.setattr("sftkey_dist.cluster.connection.usable_nodes", lambda: nodes)
    monkeypatch.setattr(launch, "draining_nodes", frozenset)


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4])
@pytest.mark.parametrize("most", [4, 6, 12])
def test_every_number_of_ranks_that_is_chosen_is_one_of_whole_groups(monkeypatch, most, neighbours):
    if most % neighbours:
        return  # refused by the configuration
    for least in range(1, most + 1):
        cluster = ClusterConfig(num_workers=most, min_workers=least)
        for room in range(14):
            nodes_with_cpus(monkeypatch, room)
            allowed = [ranks for ranks in range(least, min(room, most) + 1) if ranks % neighbours == 0]
            if allowed:
                assert launch._num_workers(cluster, neighbours, has_begun=True) == allowed[-1]
            else:
                with pytest.raises(TrainingError, match=r"too few nodes are left: \d+ workers"):
                    launch._num_workers(cluster, neighbours, has_begun=True)


def test_a_stage_pauses_for_more_ranks_only_where_they_make_a_whole_group(monkeypatch):
    cluster = ClusterConfig(num_workers=6, min_workers=2)
    group = SimpleNamespace(num_workers=2, nodes=frozenset({"0"}))
    nodes_with_cpus(monkeypatch, 2, 1)
    assert launch._reason_to_pause(cluster, group, 1)
    assert not launch._reason_to_pause(cluster, group, 2)
    nodes_with_cpus(monkeypatch, 2, 2)
    assert launch._reason_to_pause(cluster, group, 2)


def test_more_files_are_opened_where_they_may_and_named_where_not(monkeypatch):
    set_to = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: set_to.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 65536))
    host._require_open_files()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    host._require_open_files()
    for enough in ((65536, 100_000), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, enough=enough: enough)
        host._require_open_files()
    assert set_to == [(65536, 65536), (65536, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: (40, 40))
    with pytest.raises(ConfigError, match="more files than the 40"), private.private_cluster(2):
        pass


def test_nothing_starts_ahead_where_a_cluster_is_named_or_memory_is_short(monkeypatch):
    monkeypatch.setattr(host, "cluster_host", lambda num_cpus: pytest.fail("it was started"))
    with host.starting_ahead(ClusterConfig(address="10.0.0.1:6379"), 1):
        assert host.host_ahead(1) is None
    monkeypatch.setattr(host, "free_memory_bytes", lambda: 2**30)
    with host.starting_ahead(ClusterConfig(), 64):  # the cluster is refused when it is needed
        assert host.host_ahead(1) is None


def test_a_cluster_that_was_started_ahead_and_not_used_ends_at_once():
    with host.starting_ahead(ClusterConfig(), 1):
        found = host.host_ahead(1)
        assert found is not None
        assert host.host_ahead(10_000) is None, "it has too few CPUs"
        folder = Path(str(found.environment["RAY_AUTH_TOKEN_PATH"])).parent
        assert folder.is_dir()
        started = time.monotonic()
    assert time.monotonic() - started < 2.0, "it takes longer to come up"
    assert found._process.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert host.host_ahead(1) is None


def test_a_cluster_that_does_not_start_is_one_line_with_rays_reason(monkeypatch):
    monkeypatch.setattr(host, "_OBJECT_STORE_BYTES", 1)
    with pytest.raises(ConfigError) as error, private.private_cluster(1):
        pass
    assert str(error.value).startswith("the private Ray cluster did not start (ValueError: Attempting to cap object")
    assert "\n" not in str(error.value)


def test_ray_still_names_the_variable_that_binds_it_to_loopback():
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR == host.BINDS_TO_ALL


def test_accelerators_of_a_node_that_does_not_answer_are_left_out(monkeypatch):
    nodes = [{"Alive": True, "NodeID": 56 * str(number), "Resources": {"GPU": 1.0}} for number in (1, 2)]
    looks = iter(["answers", "hangs"])
    look = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: next(looks)))
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "remote", lambda function: look)
    monkeypatch.setattr(ray, "wait", lambda asked, num_returns, timeout: ([asked[0]], asked[1:]))
    monkeypatch.setattr(ray, "get", lambda answered: [[f"device that {name}"] for name in answered])
    assert connection.devices_of_nodes() == ["device that answers"]


@pytest.mark.parametrize(
    ("cluster", "resources", "cores", "said"),
    [
        ({}, {"CPU": 8}, 2, ""),
        ({}, {"CPU": 8}, 3, ""),
        ({}, {"CPU": 8}, 8, "2 of 8 CPU cores: set cluster.cpus_per_worker=4 to"),
        ({"cpus_per_worker": 4}, {"CPU": 8}, 8, ""),
        ({"address": "head:6379"}, {"CPU": 8}, 8, ""),
        (
            {},
            {"CPU": 8, "GPU": 4},
            8,
            "none of the 8 accelerators: set cluster.num_workers=8 cluster.gpus_per_worker=1",
        ),
        ({"address": "head:6379"}, {"GPU": 4}, 8, "none of the 8 accelerators"),
        ({"gpus_per_worker": 1}, {"CPU": 8, "GPU": 4}, 8, ""),
    ],
)
def test_what_training_leaves_idle_is_named_with_the_keys_that_use_it(monkeypatch, cluster, resources, cores, said):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("sftkey_dist.cluster.connection.usable_nodes", lambda: [{"Resources": resources}] * 2)
    monkeypatch.setattr("sftkey_dist.cluster.connection.usable_cores", lambda: cores)
    assert said in idle_in_words(ClusterConfig(**cluster))
    assert bool(said) == bool(idle_in_words(ClusterConfig(**cluster)))


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), (None, 6)])
def test_a_container_has_as_many_cores_as_its_limit_allows(monkeypatch, tmp_path, quota, cores):
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "_CPU_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    assert machine.usable_cores() == cores
