"""What is kept of a node that stops answering, and whose fault it is."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayError

from sftkey_dist.preflight import nodes
from sftkey_dist.preflight.records import Software, Speed, Speeds, Storage

NODE = {"NodeID": "a1", "NodeManagerAddress": "10.0.0.7", "Resources": {"GPU": 2.0}}
ANSWERS = {
    "clock": time.time(),
    "receive": 100,
    "software": Software({}, 1),
    "storage": Storage(free_bytes=5),
    "speeds": Speeds(Speed(1e9)),
}


class FakeProbe:
    """Its methods give their name as the reference that `ray.get` is asked for."""

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *_: name)


def checked(monkeypatch, tmp_path: Path, fails: str = "", error: Exception | None = None, is_there: bool = True):
    def get(name, timeout):
        assert 0 <= timeout <= 9
        if name == fails and error is not None:
            raise error
        return ANSWERS[name]

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "b2"))
    monkeypatch.setattr(nodes, "usable_nodes", lambda: [NODE] if is_there else [])
    asked = nodes._Asked(tmp_path, [], ["first", "second"], 9, 9)
    return nodes._check(NODE, 1, FakeProbe(), asked)


def test_a_node_answers_everything_and_its_file_is_looked_for(monkeypatch, tmp_path):
    unseen = checked(monkeypatch, tmp_path)
    assert (unseen.address, unseen.problem, unseen.is_seen) == ("10.0.0.7", "", False)
    assert (unseen.num_gpus, unseen.num_gpus_in_use) == (1, 1), "one of two is free"
    assert unseen.received_bytes_per_second > 0
    (tmp_path / "a1").touch()
    assert checked(monkeypatch, tmp_path).is_seen


def test_what_a_node_has_answered_before_its_time_is_over_is_kept(monkeypatch, tmp_path):
    check = checked(monkeypatch, tmp_path, "speeds", GetTimeoutError())
    assert check.problem == "had not finished multiplying matrices after 9 s"
    assert not check.is_broken
    assert check.storage == Storage(free_bytes=5)
    assert check.speeds is None


@pytest.mark.parametrize("is_there", [True, False])
def test_a_failure_counts_unless_the_node_has_left(monkeypatch, tmp_path, is_there):
    error = RayError("a traceback\nModuleNotFoundError: No module named 'torch'\n")
    check = checked(monkeypatch, tmp_path, "software", error, is_there=is_there)
    assert check.is_broken is is_there
    assert check.problem == "failed while listing what is installed (ModuleNotFoundError: No module named 'torch')"
