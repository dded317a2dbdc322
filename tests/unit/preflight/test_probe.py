"""What a node measures of itself, and how its clock is compared."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import psutil
import pytest
import torch

from sftkey_dist.preflight import products
from sftkey_dist.preflight.nodes import _clock
from sftkey_dist.preflight.probe import Probe, installed_versions
from sftkey_dist.preflight.products import multiply
from sftkey_dist.preflight.records import NodeGroup


def test_a_node_sees_writes_and_leaves_a_small_file_for_the_driver(tmp_path):
    storage = Probe().storage(str(tmp_path), [str(tmp_path), str(tmp_path / "store")], "node")
    assert storage.is_visible
    assert storage.unseen == (str(tmp_path / "store"),)
    assert not storage.problem
    assert storage.free_bytes > 0
    assert storage.written_bytes_per_second > 0
    assert storage.read_bytes_per_second > 0
    assert [(file.name, file.stat().st_size) for file in tmp_path.iterdir()] == [("node", 0)]


def test_a_node_does_not_create_the_folder_that_it_cannot_see(tmp_path):
    storage = Probe().storage(str(tmp_path / "elsewhere"), [], "node")
    assert not storage.is_visible
    assert list(tmp_path.iterdir()) == []


def test_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert Probe().storage(str(tmp_path / "file"), [], "node").problem == "Not a directory"


def test_slow_storage_takes_a_limited_time(tmp_path, monkeypatch):
    monkeypatch.setattr("sftkey_dist.preflight.probe._MAX_SECONDS_OF_A_FILE", 0.0)
    assert Probe().storage(str(tmp_path), [], "node").problem == ""


def test_versions_have_no_build_and_the_source_its_digest():
    versions = installed_versions()
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert len(versions["code"]) == 12
    assert Probe().software().versions == versions


def test_a_product_is_timed_and_a_wrong_one_is_found(monkeypatch):
    monkeypatch.setattr(products, "_SECONDS_OF_A_DEVICE", 0.01)
    cpu = torch.device("cpu")
    speed = multiply(cpu, 64, torch.float32)
    assert speed.flops_per_second > 1e6
    assert not speed.problem
    monkeypatch.setattr(products, "_timed_product", lambda ones: (ones @ ones + torch.eye(len(ones)), 0.1))
    wrong = multiply(cpu, 64, torch.float32)
    assert wrong.is_wrong
    assert wrong.problem == "a matrix product on cpu is wrong"


def test_a_device_that_fails_is_a_line_and_not_wrong(monkeypatch):
    def fail(ones):
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(products, "_timed_product", fail)
    speed = multiply(torch.device("cpu"), 8, torch.float32)
    assert speed.problem == "cpu cannot multiply matrices (CUDA error: out of memory)"
    assert not speed.is_wrong


@pytest.mark.parametrize("ahead_seconds", [-30.0, 0.0, 2.0])
def test_clocks_are_compared_by_the_shortest_exchange(ahead_seconds):
    delays = iter([0.0, 0.05, 0.0, 0.03, 0.05, 0.05, 0.05, 0.05, 0.05])

    def answer(method):
        assert method == "clock"
        now = time.time() + ahead_seconds
        time.sleep(next(delays))  # on the way back alone, which no exchange can tell from a clock that is behind
        return now

    clock = _clock(answer)
    assert clock.uncertainty_seconds < 0.01
    assert abs(clock.ahead_seconds - ahead_seconds) <= clock.uncertainty_seconds + 1e-4


def group_of(port: int, most_seconds: float) -> NodeGroup:
    return NodeGroup(
        "127.0.0.1", port, 2, {"GLOO_SOCKET_IFNAME": "lo"}, on_accelerators=False, most_seconds=most_seconds
    )


def test_nodes_sum_a_tensor_and_the_first_one_listens_on_its_address_alone():
    with ThreadPoolExecutor(1) as threads:
        first = Probe()
        port = first.listen("127.0.0.1")
        listening = {c.laddr.ip for c in psutil.Process().net_connections() if c.laddr.port == port}
        assert listening == {"127.0.0.1"}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
            second = other.submit(_all_reduce, port)
            rate = threads.submit(first.all_reduce, group_of(port, 60.0), 0).result()
            assert rate > 0
            assert second.result() > 0


def test_a_node_that_nobody_meets_says_so():
    lonely = Probe()
    with pytest.raises(Exception, match=r"(?i)time"):
        lonely.all_reduce(group_of(lonely.listen("127.0.0.1"), 0.5), 0)


def _all_reduce(port: int) -> float:
    return Probe().all_reduce(group_of(port, 60.0), 1)
