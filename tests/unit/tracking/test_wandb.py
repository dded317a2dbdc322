"""Runs in W&B, written offline and read back, where the package is installed; its absence is tested everywhere."""

import importlib.util
import json
import struct
import sys
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from sftkey_dist.config.tracking import TrackingConfig, WandbConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.tracking import make_tracker, require_packages, ways_to_open

TAGS = {"sftkey.strategy": "sft-tag", "sftkey.run": "mine"}
OFFLINE = TrackingConfig(enabled=False, also=("wandb",), wandb=WandbConfig(mode="offline"))
_HEAD = struct.Struct("<4xHB")
"""Before each part of a record: a checksum, its length and its kind."""
_BLOCK = 32768
KEY = "planted0planted0planted0planted0planted0"


@pytest.mark.parametrize("found", [None, SimpleNamespace(origin=None)], ids=["nothing", "a folder of runs"])
def test_a_missing_package_is_an_error_before_anything_starts(found, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ConfigError, match=r"pip install 'sftkey_dist\[wandb\]'"):
        make_tracker(OFFLINE.model_copy(update={"enabled": True}), tmp_path / "mine", tmp_path / "ids.json")
    assert list(tmp_path.iterdir()) == []


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin="wandb.py"))
    online = TrackingConfig(also=("wandb",))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    require_packages(OFFLINE)
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        require_packages(online)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    require_packages(online)


@pytest.mark.parametrize("name", ["a/b", "wandb_v1_0123456789abcdef0123", ""])
def test_names_are_names_and_no_keys(name):
    with pytest.raises(ValidationError):
        WandbConfig(project=name)


def test_a_tracker_is_named_once():
    with pytest.raises(ValidationError, match="must occur once"):
        TrackingConfig(also=("wandb", "wandb"))


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    folder = tmp_path / "mine"
    folder.mkdir()
    yield folder
    wandb.teardown()


def records_of(file):
    """The records of an offline run, which lie in the format of LevelDB's logs after a header of as many bytes."""
    record_type = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record
    content, place, parts = file.read_bytes(), _HEAD.size, b""
    while place + _HEAD.size <= len(content):
        if _BLOCK - place % _BLOCK < _HEAD.size:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = _HEAD.unpack_from(content, place)
        parts += content[place + _HEAD.size : place + _HEAD.size + length]
        place += _HEAD.size + length
        if kind in (1, 4):  # whole, or the last part
            yield record_type.FromString(parts)
            parts = b""


def read(run_dir):
    """Runs by name: id, group, job type, configuration, rows of the history, summary."""
    runs = {}
    for file in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        records = list(records_of(file))
        (run,) = (record.run for record in records if record.HasField("run"))
        about = {"id": run.run_id, "group": run.run_group, "job": run.job_type, "rows": [], "summary": {}}
        found = runs.setdefault(run.display_name, about | {"config": {}})
        found["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        for record in records:
            if record.HasField("history"):
                row = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                found["rows"].append({name: value for name, value in row.items() if not name.startswith("_")})
            for item in record.summary.update:
                found["summary"]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return runs


def log_all(run_dir, num_steps):
    tracker = make_tracker(OFFLINE, run_dir, run_dir / "ids.json")
    parent = tracker.start_run("strategy/sft-tag/abc", "sft-tag", None, TAGS)
    tracker.log_params(parent, {"optimization": {"learning_rate": 0.001}})
    stage = tracker.start_run("stage/abc", "stage full", parent, TAGS)
    tracker.log_params(stage, {"optimization": {"learning_rate": 0.001}})
    logged = tracker.steps_logged(stage, ["loss"])
    tracker.log_steps(
        stage, [{"step": s, "loss": 1.0 / (s + 1), "segments": {"answer": {"nll": 2.0}}} for s in range(num_steps)]
    )
    tracker.log_steps(stage, [{"step": 1, "validation": {"loss": 1.5}}])
    tracker.end_run(stage)
    tracker.log_summary(parent, {"accuracy": 0.35})
    tracker.end_run(parent)
    return tracker, logged


@pytest.mark.slow
def test_offline_runs_have_all_numbers_once_and_no_key(run_dir):
    log_all(run_dir, 2)
    tracker, logged = log_all(run_dir, 3)
    assert logged == 2
    assert tracker.has_finished("stage/abc")
    runs = read(run_dir)
    assert set(runs) == {"sft-tag", "sft-tag stage full"}
    stage, parent = runs["sft-tag stage full"], runs["sft-tag"]
    assert [(row["step"], row["loss"]) for row in stage["rows"] if "loss" in row] == [
        (0, 1.0),
        (1, 0.5),
        (2, pytest.approx(1 / 3)),
    ]
    assert [row["segments/answer/nll"] for row in stage["rows"] if "loss" in row] == [2.0] * 3
    assert [row for row in stage["rows"] if "loss" not in row] == [{"step": 1, "validation/loss": 1.5}]
    assert parent["summary"]["accuracy"] == 0.35
    assert stage["config"]["optimization"] == {"learning_rate": 0.001}
    assert stage["config"]["tags"]["strategy"] == "sft-tag"
    assert {run["group"] for run in runs.values()} == {"mine"}
    assert (parent["job"], stage["job"]) == ("strategy", "stage")
    ids = {key: run["id"] for key, run in json.loads((run_dir / "wandb.json").read_text()).items()}
    assert ids == {"strategy/sft-tag/abc": parent["id"], "stage/abc": stage["id"]}
    for file in run_dir.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    (line,) = ways_to_open(OFFLINE, run_dir)
    assert line == f"W&B: wandb sync {run_dir}/wandb/offline-run-*"


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_one_warning(run_dir, monkeypatch, capsys):
    monkeypatch.setattr("sftkey_dist.tracking.wandb_sink._SECONDS", 3.0)
    online = OFFLINE.model_copy(update={"wandb": WandbConfig()})
    tracker = make_tracker(online, run_dir, run_dir / "ids.json")
    stage = tracker.start_run("stage/abc", "stage full", None, TAGS)
    for step in range(2):
        tracker.log_steps(stage, [{"step": step, "loss": 1.0}])
    tracker.end_run(stage)
    said = capsys.readouterr().out
    assert said.count("W&B failed") == 1
    assert KEY not in said
    sys.modules["wandb"].teardown()
    later = make_tracker(OFFLINE, run_dir, run_dir / "ids.json")
    assert later.log_missing(later.start_run("stage/abc", "stage full", None, TAGS), [{"step": 0, "loss": 1.0}]) == 1
