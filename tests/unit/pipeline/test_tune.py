"""Tunings: the trials that their keys stand for, what is refused, and what is said about the result."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sftkey_dist.cli.arguments import load_run_config
from sftkey_dist.config import RunConfig, load_config, load_trial, load_tuning
from sftkey_dist.errors import ConfigError
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.tuning import plan as tune_plan
from sftkey_dist.pipeline.tuning.plan import (
    link_folders,
    plan_trial,
    require_scores,
    sample,
    train_shared,
    trial_config,
)
from sftkey_dist.report.tuning import write_tuning_page
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.tuning import TUNING, AshaRule, TrialRecord, TrialScore, TuningRecord
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.tracking import Tracker

ROOT = Path(__file__).parents[3]
RATE, EPOCHS, TAGS = "key_stage.optimization.learning_rate", "key_stage.optimization.num_epochs", "key_stage.tags"


@pytest.fixture
def file(tmp_path, tiny_model) -> Path:
    memos = {"adapter": "decision_memos", "limit": 24}
    file = tmp_path / "tune.yaml"
    content = {
        "run_dir": str(tmp_path / "tuning"),
        "model": {"path": str(tiny_model)},
        "data": {"train": memos, "test": memos | {"split": "test"}, "store_dir": str(tmp_path / "store")},
        "validation": {"num_examples": 8, "every_steps": 25, "guard": {"num_examples": 4}},
        "tune": {
            "keys": {RATE: {"loguniform": [1e-7, 1e-4]}, EPOCHS: {"choice": [1, 2, 3]}, TAGS: {"grid": [False, True]}},
            "num_trials": 6,
        },
    }
    file.write_text(yaml.safe_dump(content))
    return file


def test_trials_are_sampled_by_the_seed_differ_and_are_validated(file, tmp_path):
    tuning = load_tuning([file])
    trials = sample(tuning)
    assert len({str(trial) for trial in trials}) == 6
    assert [trial[TAGS] for trial in trials] == [False, True] * 3
    assert all(1e-7 <= trial[RATE] <= 1e-4 and trial[EPOCHS] in (1, 2, 3) for trial in trials)
    assert sum(trial[RATE] < 3e-6 for trial in trials) in range(1, 6), "half of the logarithms lie below it"
    assert sample(load_tuning([file])) == trials
    assert sample(load_tuning([file], ["tune.seed=1"])) != trials
    config = load_trial(tuning, "trial-002", trials[1])
    assert config.run_dir == tmp_path / "tuning/trial-002"
    assert config.strategies == ("sftkey-tag",)
    assert config.tracking.experiment == "tuning"
    key = config.key_stage
    assert (key.optimization.learning_rate, key.optimization.num_epochs, key.tags) == tuple(trials[1].values())


def with_keys(file: Path, keys: dict, num_trials: int | None = None) -> Path:
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | {"tune": {"keys": keys, "num_trials": num_trials}}))
    return file


def test_grids_alone_need_no_number_of_trials(file):
    tuning = load_tuning([with_keys(file, {RATE: {"grid": [1e-5, 1e-4]}, EPOCHS: {"grid": [1, 2]}})])
    found = sample(tuning)
    assert [(trial[RATE], trial[EPOCHS]) for trial in found] == [(1e-5, 1), (1e-5, 2), (1e-4, 1), (1e-4, 2)]


def test_trials_that_cannot_all_differ_are_refused(file):
    with pytest.raises(ConfigError, match=r"num_trials=5 is no multiple of the 2 combinations of the grids"):
        sample(load_tuning([file], ["tune.num_trials=5"]))
    with pytest.raises(ConfigError, match=r"num_trials=4: only 3 different trials were found; lower it"):
        sample(load_tuning([with_keys(file, {EPOCHS: {"choice": [1, 2, 3]}}, num_trials=4)]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"key_stage.optimization.learning": {"grid": [1]}}, "unknown key; did you mean learning_rate"),
        ({RATE: {"loguniform": [1e-5, 1e4]}}, f"{RATE}=10000.0: {RATE}: must be at most 100"),
        ({EPOCHS: {"uniform": [1.5, 3]}}, "expected a whole number, found 1.5"),
        ({RATE: {"loguniform": [1e-4, 1e-5]}}, "the lowest value comes first"),
        ({RATE: {"loguniform": [0, 1e-5]}}, "greater than 0, got 0"),
        ({RATE: {"logunifrom": [1e-5, 1e-4]}}, "logunifrom: unknown key; did you mean loguniform"),
        ({RATE: {"grid": [1e-5], "choice": [1e-4]}}, "give one of loguniform, uniform, choice and grid"),
        (
            {RATE: {"grid": [1e-5]}, "key_stage.optimization": {"grid": [{"num_epochs": 2}]}},
            f"{RATE} is below key_stage.optimization, which is tuned as well; remove one of them",
        ),
        (
            {"data.max_length_tokens": {"grid": [64]}},
            "data.max_length_tokens cannot be tuned, only keys of",
        ),
    ],
)
def test_mistakes_in_keys_are_one_line_before_anything_is_sampled(file, keys, message):
    with pytest.raises(ConfigError) as raised:
        load_tuning([with_keys(file, keys, num_trials=2)])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.strategy=mine", "tune.strategy=mine: there is no such strategy; the strategies are sft, sft-tag"),
        ("tune.num_trials=null", "num_trials is missing"),
        ("tune.metric=score", r"tune\.metric: 'score' does not have the form \^\(guard/"),
        (f"{RATE}=1e-5", f"the command line: {RATE} is tuned, so that the value would have no effect; leave it out"),
    ],
)
def test_other_mistakes_are_named_too(file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_tuning([file], [override])


def test_commands_name_each_other_for_files_that_they_do_not_take(file):
    with pytest.raises(ConfigError, match=r"quickstart\.yaml: no section tune"):
        load_tuning([ROOT / "configs/quickstart.yaml"])
    with pytest.raises(ConfigError, match=r"the section tune describes many trials, which `sftkey tune` trains"):
        load_run_config([str(file)])


def test_stages_before_the_tuned_one_are_shared_and_what_cannot_be_compared_is_refused(file, monkeypatch):
    tuning = load_tuning([file])
    configs = [trial_config(tuning, f"trial-{number}", values) for number, values in enumerate(sample(tuning))]
    preparation = prepare(configs[0])
    plans = [plan_trial(config, preparation) for config in configs]
    assert len({full.digest for full, _ in plans}) == 1
    assert len({key.digest for _, key in plans}) == 6
    tuned = [key for _, key in plans]
    require_scores(tuning, configs[0], tuned)
    with pytest.raises(ConfigError, match=r"tune\.keys: some trials of .* are the same training, because sftkey-tag"):
        require_scores(tuning, configs[0], [*tuned, tuned[0]])
    with pytest.raises(ConfigError, match=r"tune\.metric=guard/score: no guard watches stage full of sftkey-tag"):
        require_scores(tuning, configs[0], [full for full, _ in plans])
    other = load_tuning([file], ["tune.metric=validation/segments/anser/nll"])
    with pytest.raises(ConfigError, match=r"the segments are prompt, .*answer"):
        require_scores(other, configs[0], tuned)
    of_loss = load_tuning([file], ["tune.metric=validation/loss"])
    with pytest.raises(ConfigError, match=r"cannot be compared; set tune\.metric=validation/segments/answer/nll"):
        require_scores(of_loss, configs[0], tuned)
    require_scores(of_loss, configs[0], tuned[::2])  # all without tags
    seldom = tuned[0].job.validation.model_copy(update={"every_steps": 20})
    odd = replace(tuned[0], job=tuned[0].job.model_copy(update={"validation": seldom}))
    with pytest.raises(ConfigError, match=r"measured every 20 steps, and the guard may keep the model after any 25"):
        require_scores(of_loss, configs[0], [odd])

    def refuse(config: RunConfig) -> Tracker:
        raise ConfigError(f"{config.tracking.experiment}: no answer")

    monkeypatch.setattr(tune_plan, "open_tracker", refuse)
    unshared = replace(plan_run(configs[0], preparation), strategies=())
    with pytest.raises(ConfigError, match=r"^tuning: no answer$"):
        train_shared(unshared, [[key] for key in tuned])


def test_trials_get_the_master_weights_back_and_append_to_journals_of_their_own(tmp_path):
    first, trial = RunDir(tmp_path / "first-stages"), RunDir(tmp_path / "trial-001")
    stage, copy = StageDir(first.path / "stages/full-0123"), StageDir(trial.path / "stages/full-0123")
    for file in (stage.events, stage.summary, stage.masters / "manifest.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}\n")
    link_folders([stage.path], first, trial)
    assert copy.summary.samefile(stage.summary)
    append_event(copy.events, "restarted", "in the trial")
    assert stage.events.read_text() == "{}\n"
    shutil.rmtree(copy.masters)
    assert not copy.has_masters
    link_folders([stage.path], first, trial)
    assert copy.has_masters
    assert "in the trial" in copy.events.read_text()


def record() -> TuningRecord:
    def trial(number: int, status: str, final: float, *values: float) -> TrialRecord:
        scores = tuple(TrialScore(25 * step, value) for step, value in enumerate(values))
        return TrialRecord(f"trial-{number:03d}", "d", {RATE: 10.0**-number, TAGS: True}, status, scores, final)

    trials = (
        trial(1, "stopped", math.nan, 0.5, 0.95),
        trial(2, "finished", 0.7, 0.5, 0.6),
        trial(3, "failed", math.nan),
        trial(4, "finished", 0.9, 0.5, 0.9),
    )
    return TuningRecord("sftkey-tag", "guard/score", "max", 50, AshaRule(25, 3), trials)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, ["stopped", "finished", "unfinished", "finished"]),
        ({"asha": AshaRule(50, 3)}, ["unfinished", "finished", "unfinished", "finished"]),
        ({"asha": None}, ["unfinished", "finished", "unfinished", "finished"]),
        ({"metric": "guard/accuracy"}, ["unfinished"] * 4),
    ],
)
def test_scores_of_another_metric_and_stops_by_another_rule_are_not_taken_over(changes, kept):
    earlier = record()
    new = tuple(TrialRecord(trial.run_dir, trial.digest, trial.parameters) for trial in earlier.trials)
    found = replace(earlier, trials=new, **changes).with_done_of(earlier)
    assert [trial.status for trial in found.trials] == kept
    assert all(trial in (*earlier.trials, *new) for trial in found.trials)


def test_the_best_is_a_finished_trial_and_losses_are_minimised(tmp_path):
    found = record()
    assert [trial.run_dir for trial in found.by_score] == ["trial-004", "trial-002", "trial-001", "trial-003"]
    assert found.best == found.trials[3]
    assert replace(found, mode="min", metric="validation/loss").best == found.trials[1]
    assert replace(found, trials=found.trials[::2]).best is None
    TUNING.write(tmp_path / "tune.json", found)
    assert TUNING.read(tmp_path / "tune.json").by_score[0] == found.trials[3]


def test_the_page_has_all_trials_and_says_what_the_best_score_is_worth(tmp_path):
    page, figure = write_tuning_page(record(), tmp_path, "sftkey tune my.yaml")
    text = page.read_text()
    assert "| trial-004 | 0.0001 | True | 0.9000 | 25 | finished |\n| trial-002 | 0.01 | True | 0.7000 |" in text
    assert "on 50 held-out rows" in text
    assert "The best of 2 finished trials of one seed" in text
    assert figure.is_file()
    assert f"({figure.name})" in text


def test_the_example_loads_and_its_trials_are_configurations_of_a_run(tmp_path):
    tuning = load_tuning([ROOT / "configs/tune_key_stage.yaml"])
    for number, values in enumerate(sample(tuning)):
        (tmp_path / "run.yaml").write_text(load_trial(tuning, f"trial-{number}", values).model_dump_json())
        assert load_config([tmp_path / "run.yaml"]).strategies == ("sftkey-tag",)
