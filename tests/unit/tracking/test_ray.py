"""What is exported through Ray. tests/e2e/test_jobs.py reads it from the endpoint of a node."""

import math
import re
import threading

import pytest

from sftkey_dist.config.tracking import TrackingConfig
from sftkey_dist.tracking import make_tracker, ray_sink, ways_to_open
from tests.markdown import ROOT, block

TAGS = {"sftkey.run": "mine", "sftkey.strategy": "sft-tag", "sftkey.stage": "full"}
ONLY_RAY = TrackingConfig(enabled=False, also=("ray",))
UNITS = ("nats", "ratio", "seconds", "bytes", "per_second", "tokens", "ranks", "step", "learning_rate", "gradient_norm")


@pytest.fixture
def exported(monkeypatch):
    """The values by name and tags, as the endpoint has them."""
    values = {}

    class Metric:
        def __init__(self, name, description, tag_keys):
            self.name, self.tag_keys = name, tag_keys

        def set(self, value, tags):
            assert set(tags) == set(self.tag_keys)
            values[self.name, tags.get("segment")] = value
            assert [tags[key] for key in ("run", "strategy", "stage")] == ["mine", "sft-tag", "full"]

        def inc(self, value, tags):
            self.set(values.get((self.name, None), 0) + value, tags)

    for kind, maker in (("Gauge", "_gauge"), ("Counter", "_counter")):
        monkeypatch.setattr(ray_sink, kind, Metric)
        getattr(ray_sink, maker).cache_clear()
    yield values
    for maker in ("_gauge", "_counter"):
        getattr(ray_sink, maker).cache_clear()


@pytest.fixture
def stage(tmp_path):
    tracker = make_tracker(ONLY_RAY, tmp_path / "mine", tmp_path / "ids.json")
    run = tracker.start_run("stage/abc", "stage full", "strategy/sft-tag", TAGS)
    yield tracker, run
    tracker.end_run(run)


def step(number, **more):
    return {"step": number, "loss": 1 / (number + 1), "tokens": 100, "loss_tokens": 0} | more


def test_the_newest_values_are_exported_and_tokens_are_counted_once(exported, stage):
    tracker, run = stage
    tracker.log_steps(run, [step(0, segments={"final/answer": {"nll": 2.0, "token_accuracy": 0.5, "tokens": 7}})])
    tracker.log_steps(run, [step(number) for number in (1, 2, 1)])  # a restarted worker group writes steps again
    tracker.log_steps(run, [{"step": 2, "peak_memory_gib": 0.5, "phase_seconds": {"forward": 1.0}}])
    tracker.log_steps(run, [{"step": 3, "validation": {"loss": 1.5, "segments": {"answer": {"nll": 3.0}}}}])
    assert exported == {
        ("sftkey_step", None): 2,
        ("sftkey_loss_nats", None): pytest.approx(1 / 3),
        ("sftkey_tokens", None): 300,
        ("sftkey_segment_nll_nats", "final/answer"): 2.0,
        ("sftkey_segment_token_accuracy_ratio", "final/answer"): 0.5,
        ("sftkey_peak_memory_bytes", None): 2**29,
        ("sftkey_held_out_loss_nats", None): 1.5,
        ("sftkey_held_out_segment_nll_nats", "answer"): 3.0,
    }


def test_a_value_that_is_no_number_leaves_the_one_before(exported, stage):
    tracker, run = stage
    tracker.log_steps(run, [step(0, grad_norm=1.0), step(1, grad_norm=math.nan)])
    assert exported["sftkey_gradient_norm", None] == 1.0
    assert exported["sftkey_step", None] == 1


def test_a_stage_is_exported_until_it_ends(exported, stage, monkeypatch):
    monkeypatch.setattr(ray_sink, "_SECONDS_BETWEEN_EXPORTS", 0.01)
    tracker, run = stage
    tracker.log_steps(run, [step(0)])
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "ray-metrics"]
    exported.clear()
    thread.join(0.5)
    assert exported["sftkey_step", None] == 0
    tracker.end_run(run)
    thread.join(5)
    assert not thread.is_alive()


def test_nothing_is_missing_afterwards_and_no_other_tracker_has_to_log_again(exported, stage, tmp_path):
    tracker, run = stage
    assert tracker.log_missing(run, [step(0)]) == 0
    assert exported == {}
    assert tracker.has_finished("evaluation/abc")
    assert list(ways_to_open(ONLY_RAY, tmp_path)) == []


def test_without_a_cluster_nothing_happens(stage, capsys):
    tracker, run = stage
    tracker.log_steps(run, [step(0)])
    assert "failed" not in capsys.readouterr().out


def test_names_are_those_of_the_page_and_of_prometheus_with_a_unit():
    tables = (ray_sink._GAUGES, ray_sink._SEGMENT_GAUGES, ray_sink._COUNTERS)
    names = [measure.name for table in tables for measure in table.values()]
    counters = {measure.name for measure in ray_sink._COUNTERS.values()}
    listed = block(ROOT / "docs" / "tracking.md", "text", "ray_sftkey_step").split()
    assert sorted(listed) == sorted(f"ray_{name}_total" if name in counters else f"ray_{name}" for name in names)
    for name in names:
        assert re.fullmatch(r"sftkey_[a-z_]+", name)
        assert name.endswith(UNITS), name
