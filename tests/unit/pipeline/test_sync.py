"""`sync` of a finished run with event files alone."""

import json

import pytest

from sftkey_dist.config import load_config
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.pipeline.tracking.sync import sync
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.training import read_summary
from sftkey_dist.tracking.tensorboard_sink import TensorBoardSink
from tests.finished_run import write_run
from tests.markdown import ROOT


@pytest.fixture
def run(tmp_path):
    """A strategy that was trained and evaluated, which nothing has tracked; its first stage belongs to another."""
    run = RunDir(write_run(tmp_path / "runs" / "mine", {"sftkey-tag": 7}))
    (run.path / "evaluation" / "sftkey-tag" / "review.jsonl").touch()
    summary = StageDir(run.path / "stages" / "key-2").summary
    content = json.loads(summary.read_text())
    write_json_atomically(summary, content | {"inputs": content["inputs"] | {"store": "abc"}})
    return run


def configure(run, *overrides):
    config = load_config([ROOT / "configs" / "quickstart.yaml"], [f"run_dir={run.path}", *overrides])
    write_json_atomically(run.config, config.model_dump(mode="json"))


def test_a_run_gets_the_event_files_that_it_lacks_and_each_point_once(run):
    configure(run, "tracking.enabled=false", "tracking.also=[tensorboard]")
    assert sync(run.path) > 4
    folder = run.path.parent / "tensorboard" / "mine"
    files = sorted(folder.rglob("events*"))
    assert len(list(folder.glob("sftkey-tag/stage-key-*"))) == 1
    digest = read_summary(StageDir(run.path / "stages" / "key-2")).digest
    known = TensorBoardSink(folder).known(f"stage/{digest}")
    assert known.next_steps["segments/answer/nll"] == known.next_steps["loss"] == known.next_steps["seconds"] == 4
    assert sync(run.path) == 0
    assert sorted(folder.rglob("events*")) == files
    assert json.loads(run.strategies.read_text())["sftkey-tag"]["mlflow_run_id"] is None


def test_a_run_that_nothing_tracks_cannot_be_synchronised(run):
    configure(run, "tracking.enabled=false")
    with pytest.raises(ConfigError, match="tracking is disabled"):
        sync(run.path)
