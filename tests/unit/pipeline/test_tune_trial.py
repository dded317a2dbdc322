"""Trials of a tuning: when they are asked to end, how they end, and which score they have."""

import queue
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sftkey_dist.config.tune import TuneConfig, Tuning
from sftkey_dist.errors import ConfigError, InterruptedRunError
from sftkey_dist.pipeline.tuning import trial as tune_trial
from sftkey_dist.pipeline.tuning import tune
from sftkey_dist.pipeline.tuning.trial import NUMBER, SCORE, STATUS, STEP, Trial, TrialJob, score_of_result
from sftkey_dist.pipeline.tuning.tune import AskingAsha
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.training import (
    INTERPOLATIONS,
    OBSERVATIONS,
    SUMMARY,
    GuardScores,
    GuardSummary,
    HeldOutMetrics,
    Interpolation,
    Observation,
    StageSummary,
)
from sftkey_dist.run_dir.artifacts.tuning import TUNING, TrialRecord, TuningRecord
from sftkey_dist.tracking import NullTracker


@pytest.fixture
def job(tmp_path) -> TrialJob:
    return TrialJob({}, tmp_path, "guard/score", tmp_path / "stop_request", tmp_path / "stopped", None)


def test_trials_are_asked_to_end_but_not_after_their_last_step(tmp_path):
    files = [tmp_path / f"stopped-{number}" for number in range(4)]
    scheduler = AskingAsha(
        [(4, files[0]), (2, files[1]), (4, files[2]), (4, files[3])],
        time_attr=STEP,
        metric=SCORE,
        mode="max",
        max_t=4,
        grace_period=2,
        reduction_factor=2,
        stop_last_trials=False,
    )
    trials = [SimpleNamespace(trial_id=str(number), config={NUMBER: number}) for number in range(4)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    for trial, score in zip(trials, (0.9, 0.1, 0.2, 0.95), strict=True):
        assert scheduler.on_trial_result(None, trial, {STEP: 2, SCORE: score}) == scheduler.CONTINUE
    assert [file.exists() for file in files] == [False, False, True, False], "the second has made its two steps"


@pytest.mark.parametrize(("file", "status"), [("stopped", "stopped"), ("stop_request", "unfinished")])
def test_what_asks_a_trial_to_end_decides_whether_it_goes_on_later(monkeypatch, job, file, status):
    def train(*_):
        getattr(job, file).touch()
        raise InterruptedRunError(15)

    monkeypatch.setattr(tune_trial, "_train", train)
    results = queue.Queue()
    tune_trial._carry_out(job, results)
    assert results.get_nowait()[STATUS] == status


def test_a_stopped_trial_reports_its_end_only_and_one_that_does_not_end_takes_no_other(monkeypatch, job):
    asked = []
    monkeypatch.setattr(tune_trial, "stop_gently", lambda: asked.append(True))
    monkeypatch.setattr(tune_trial, "_MAX_SECONDS_TO_END", 0.5)
    trial = Trial.__new__(Trial)
    trial._jobs, trial._job, trial._results = [job], job, queue.Queue()
    trial._run = SimpleNamespace(is_alive=lambda: True, join=lambda seconds: None)
    for result in ({STEP: 2, SCORE: 0.5}, {STEP: 4, SCORE: 0.6}, {STEP: -1, STATUS: "stopped"}):
        trial._results.put(result)
    assert trial.step() == {STEP: 2, SCORE: 0.5}
    assert not asked
    job.stopped.touch()
    assert trial.step() == {STEP: -1, STATUS: "stopped"}
    assert asked
    assert trial.reset_config({NUMBER: 0}) is False


def test_a_trial_that_the_scheduler_has_stopped_removes_its_checkpoints_at_once(monkeypatch, job, run_config):
    def interrupt(*_, **__):
        raise InterruptedRunError(15)

    removed, tuned = [], SimpleNamespace(digest="d")
    monkeypatch.chdir(job.folder)  # the trial goes there
    for name in ("prepare", "open_tracker"):
        monkeypatch.setattr(tune_trial, name, lambda config: None)
    monkeypatch.setattr(tune_trial, "plan_run", lambda config, preparation: SimpleNamespace(stages=[tuned]))
    monkeypatch.setattr(tune_trial, "train", interrupt)
    monkeypatch.setattr(tune_trial, "remove_working_files", removed.append)
    job = replace(job, config=run_config.model_dump(mode="json"))
    for expected in ([], [tuned]):
        with pytest.raises(InterruptedRunError):
            tune_trial._train(job, queue.Queue())
        assert removed == expected
        job.stopped.touch()


def test_room_is_for_the_trials_that_are_left_and_stopped_ones_leave_no_checkpoints(monkeypatch, tmp_path, run_config):
    def interrupt(*_):
        raise InterruptedRunError(15)

    run, rooms, linked, removed = RunDir(tmp_path), [], [], []
    trials = tuple(
        TrialRecord(f"trial-{number}", "d", {}, status)
        for number, status in enumerate(("stopped", "unfinished", "failed", "finished"))
    )
    record = TuningRecord("sftkey-tag", "guard/score", "max", 4, None, trials)
    TUNING.write(run.tuning, record)
    monkeypatch.setattr(tune, "prepare", lambda config: SimpleNamespace(run=RunDir(config.run_dir)))
    monkeypatch.setattr(tune, "plan_trial", lambda config, preparation: [config.run_dir.name])
    monkeypatch.setattr(tune, "connected", lambda cluster, num_workers: nullcontext(rooms.append(num_workers)))
    for name, stand_in in {
        "require_scores": lambda *_: None,
        "plan_run": lambda *_: None,
        "train_shared": lambda *_: [],
        "link_folders": lambda folders, source, target: linked.append(target.path.name),
        "_run_trials": interrupt,
        "remove_working_files": removed.append,
    }.items():
        monkeypatch.setattr(tune, name, stand_in)
    configs = [run_config.model_copy(update={"run_dir": tmp_path / trial.run_dir}) for trial in trials]
    settings = TuneConfig.model_validate({"keys": {"training.lora": {"grid": [None]}}, "max_concurrent": 8})
    with pytest.raises(InterruptedRunError):
        tune._carry_out(Tuning(tmp_path, settings, {}, ()), run, configs, record)
    assert rooms == [2 * run_config.cluster.num_workers]
    assert linked == ["trial-1", "trial-2"]
    assert removed == ["trial-0"]


def test_an_outage_of_the_tracking_store_does_not_end_a_trial(monkeypatch, run_config, capsys):
    def refuse(_):
        raise ConfigError("tracking.uri: no answer")

    monkeypatch.setattr(tune_trial, "open_tracker", refuse)
    assert isinstance(tune_trial._tracker_or_none(run_config), NullTracker)
    assert "warning: the trial is not tracked: tracking.uri: no answer; `sftkey track sync" in capsys.readouterr().out


def test_the_score_is_that_of_the_model_that_is_handed_on(tmp_path):
    def held_out(loss: float) -> HeldOutMetrics:
        return HeldOutMetrics(loss, {})

    def guard(score: float) -> GuardScores:
        return GuardScores(n=4, accuracy=score, format=1.0, score=score)

    stage = StageDir(tmp_path)
    for step, (loss, score) in enumerate([(3.0, 0.1), (2.0, 0.9), (1.0, 0.5)]):
        OBSERVATIONS.append(stage.validation, [Observation(5 * step, held_out(loss), guard(score))])
    INTERPOLATIONS.append(stage.interpolations, [Interpolation(0.5, held_out(1.5), guard(0.95))])
    summary = StageSummary(
        inputs={"weights": [1.0]}, steps=10, tokens=1, loss_tokens=1, train_seconds=1.0, world_size=1
    )
    kept = GuardSummary(5, 0.9, 0.1, 0.5, 3)
    for chosen, scores in (
        (kept, (2.0, 0.9)),
        (replace(kept, kept_step=10, kept_score=0.95, kept_part=0.5), (1.5, 0.95)),
        (None, (1.0, 0.5)),
    ):
        SUMMARY.write(stage.summary, replace(summary, guard=chosen))
        assert (score_of_result(stage, "validation/loss"), score_of_result(stage, "guard/accuracy")) == scores
