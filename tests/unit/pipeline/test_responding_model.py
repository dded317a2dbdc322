"""The evaluation of a model that was replaced by another from the same settings is not that of the new one."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from sftkey_dist.pipeline.records import _is_up_to_date
from sftkey_dist.pipeline.responding_model import begin_responses, is_of_present_model, renewal
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.run import read_strategies
from tests.finished_run import write_run


@dataclass
class Evaluated:
    folder: Path
    last: StageDir

    def begin(self) -> None:
        begin_responses(self.folder, self.last, "sft-tag")

    def train_again(self, weights: str) -> None:
        summary = json.loads(self.last.summary.read_text())
        summary["model_files"] = {"model.safetensors": {"bytes": 1, "sha256": 63 * "0" + weights}}
        self.last.summary.write_text(json.dumps(summary))


@pytest.fixture
def evaluated(tmp_path) -> Evaluated:
    run = RunDir(write_run(tmp_path / "run", {"sft-tag": 7}))
    (entry,) = json.loads(run.strategies.read_text()).values()
    folder, last = run.path / entry["evaluation"], StageDir(run.path / entry["stages"][-1]["path"])
    return Evaluated(folder, last)


def test_what_was_evaluated_of_other_weights_is_set_aside(evaluated, capsys):
    evaluated.train_again("a")
    evaluated.begin()
    assert (evaluated.folder / "scores.json").is_file(), "of an earlier version, which noted no model"
    evaluated.train_again("a")
    evaluated.begin()
    assert (evaluated.folder / "scores.json").is_file()
    assert not capsys.readouterr().out
    assert renewal(evaluated.folder) == ""
    renewals = set()
    for number in (1, 2):
        evaluated.train_again(str(number))
        assert not is_of_present_model(evaluated.folder, evaluated.last)
        evaluated.begin()
        assert [file.name for file in evaluated.folder.iterdir()] == ["model.json"]
        aside = evaluated.folder.parent / "earlier" / f"{evaluated.folder.name}-{number}"
        assert (aside / "scores.json").is_file() is (number == 1)
        assert str(aside.parent) in "".join(capsys.readouterr().out.split("\n"))
        assert is_of_present_model(evaluated.folder, evaluated.last)
        renewals.add(renewal(evaluated.folder))
    assert len(renewals - {""}) == 2


def test_a_command_that_was_killed_after_it_set_responses_aside_is_remembered(evaluated):
    evaluated.train_again("a")
    aside = evaluated.folder.parent / "earlier" / f"{evaluated.folder.name}-1"
    aside.parent.mkdir()
    evaluated.folder.rename(aside)
    evaluated.begin()
    assert renewal(evaluated.folder)


def test_a_first_evaluation_notes_its_model(evaluated):
    evaluated.folder = evaluated.folder.with_name("sft-tag-new")
    evaluated.begin()
    assert is_of_present_model(evaluated.folder, evaluated.last)
    assert renewal(evaluated.folder) == ""
    evaluated.train_again("b")
    assert not is_of_present_model(evaluated.folder, evaluated.last)


def test_an_evaluation_with_other_settings_is_not_that_of_the_configuration(evaluated, tmp_path):
    """A comparison must not show it beside others: its strategy has not been evaluated as the others have."""
    run = RunDir(tmp_path / "run")
    (entry,) = read_strategies(run).values()
    stages = [SimpleNamespace(directory=evaluated.last)]
    for folder, is_its_own in ((evaluated.folder, True), (evaluated.folder.with_name("sft-tag-other"), False)):
        planned = SimpleNamespace(evaluation=SimpleNamespace(folder=folder), stages=stages)
        assert _is_up_to_date(entry, SimpleNamespace(run=run), planned) is is_its_own
