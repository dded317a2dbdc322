"""What a study says while its runs are at work."""

import time
from pathlib import Path

import pytest

from sftkey_dist.config import load_study
from sftkey_dist.console import ProgressLine
from sftkey_dist.pipeline.study.progress import StudyProgress
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS
from sftkey_dist.run_dir.artifacts.underway import BEGINNING, Beginning
from sftkey_dist.run_dir.lock import locked
from tests.records import step_metrics

STUDY = """
run_dir: runs
model: {embedded: {}}
data:
  train: {adapter: decision_memos, limit: 8}
  test: {adapter: decision_memos, split: test, limit: 4}
study: {title: Rates, seeds: [3, 5], runs_at_a_time: 2, variants: {short: {}, long: {}}}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    return load_study([Path("study.yaml")])


def test_the_time_left_follows_from_what_runs_of_the_same_variant_took(study, monkeypatch, capsys):
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    line = ProgressLine(None, "Rates", 4)
    progress = StudyProgress(study, 0, line)
    short_3, long_3, short_5, long_5 = study.runs
    progress.begin(short_3)
    progress.begin(long_3)
    seconds[0] = 16.0
    progress.show([short_5, long_5])
    assert capsys.readouterr().out == "Rates: 0/4 short/seed-3; long/seed-3 16 s\n", "nothing is known yet"
    seconds[0] = 100.0
    progress.end(short_3, has_failed=False)
    assert capsys.readouterr().out == "short/seed-3: done after 100 s\nRates: 1/4 100 s\n"
    progress.begin(short_5)
    progress.show([long_5])
    assert line.seconds_left() == 100, "the long run is taken to be as long, and its place is free at once"
    seconds[0] = 300.0
    progress.end(long_3, has_failed=False)
    progress.end(short_5, has_failed=True)
    progress.begin(long_5)
    seconds[0] = 350.0
    progress.show([])
    assert line.seconds_left() == 250, "a long run took 300 seconds, and this one has had 50 of them"


def test_how_fast_a_run_fails_or_is_completed_says_nothing_about_others(study, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    line = ProgressLine(None, "Rates", 4)
    progress = StudyProgress(study, 0, line)
    failing, resumed, other, last = study.runs
    (study.folder / resumed.name / "stages/tagged-full").mkdir(parents=True)
    for run in (failing, resumed):
        progress.begin(run)
        seconds[0] += 20.0
        progress.end(run, has_failed=run is failing)
    progress.begin(other)
    progress.show([last])
    assert line.seconds_left() is None


def test_each_run_says_what_it_does(study, capsys, monkeypatch):
    run = RunDir(study.folder / study.runs[0].name)
    stage = StageDir(run.path / "stages/tagged-full")
    stage.path.mkdir(parents=True)
    BEGINNING.write(stage.beginning, Beginning("sft-tag stage 1/1 (full)", 8, 1.0))
    METRICS.write(stage.metrics, [step_metrics(step) for step in range(3)])
    monkeypatch.setattr("sftkey_dist.console._SECONDS_BETWEEN_LINES", -1.0)
    progress = StudyProgress(study, 0, ProgressLine(None, "Rates", 4))
    progress.begin(study.runs[0])
    with locked(run.lock):
        progress.show(study.runs[1:])
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown == "Rates: 0/4 short/seed-3 sft-tag stage 1/1 (full), step 3 of 8 0 s"
