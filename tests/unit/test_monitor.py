import time

import pytest

from sftkey_dist.console import ProgressLine
from sftkey_dist.pipeline.monitor import _Follower, follow_stage
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS, TIMINGS
from sftkey_dist.tracking import NullTracker
from tests.records import step_metrics, step_timing

KEYS = ("loss", "tokens_per_second")


class Recorder(NullTracker):
    """Remembers which steps were logged under which metric."""

    def __init__(self, steps_there):
        self.steps_there = steps_there
        self.logged = []

    def steps_logged(self, run_id, metrics):
        return self.steps_there

    def log_steps(self, run_id, records):
        self.logged += [(key, record["step"]) for record in records for key in KEYS if key in record]


def write(stage, steps):
    METRICS.write(stage.metrics, map(step_metrics, steps))
    TIMINGS.write(stage.timings, map(step_timing, steps))


@pytest.mark.slow
def test_every_step_is_logged_once_also_when_workers_restart_and_runs_resume(tmp_path):
    stage, tracker = StageDir(tmp_path), Recorder(steps_there=2)
    write(stage, range(5))
    with follow_stage(stage, "stage", 8, tracker, None) as _:
        pass
    assert tracker.logged == [(key, step) for key in KEYS for step in (2, 3, 4)]

    restarted = Recorder(steps_there=0)
    with follow_stage(stage, "stage", 8, restarted, None):
        deadline = 100
        while len(restarted.logged) < 10 and (deadline := deadline - 1):
            time.sleep(0.1)
        write(stage, range(3))  # back to a checkpoint, then on
        time.sleep(1.2)
        write(stage, range(8))
    for key in KEYS:
        assert [step for name, step in restarted.logged if name == key] == list(range(8))


def test_steps_of_an_earlier_command_say_nothing_about_the_time_left(tmp_path, monkeypatch):
    stage, seconds = StageDir(tmp_path), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    write(stage, range(60))
    line = ProgressLine(None, "stage", 120)
    monitor = _Follower(stage, "stage", line, Recorder(steps_there=60), None)
    for seconds[0], step in ((20.0, None), (30.0, 60), (31.0, 61)):  # the workers start for 30 s
        METRICS.append(stage.metrics, [] if step is None else [step_metrics(step)])
        monitor.catch_up()
    assert line.seconds_left() == 58, "a second for each step that is left"
