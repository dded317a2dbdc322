"""The scripts of the page on Python do what it says."""

import re
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

import sftkey_dist
from sftkey_dist.pipeline.run import RunResult
from tests.finished_run import NUM_QUESTIONS, write_run
from tests.markdown import ROOT, block

PAGE = ROOT / "docs" / "python.md"


def names_defined_by(script: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(script, str(PAGE), "exec"), names)
    return names


def test_the_page_names_the_whole_public_interface():
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named | {"RunConfig", "RunResult", "Comparison"} == set(sftkey_dist.__all__)


def test_results_are_read_from_a_finished_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "quickstart", {"sft": 5, "sftkey-tag": 9})
    page = names_defined_by(block(PAGE, "python", "read_comparison"))
    assert page["scores"].set_index("strategy")["accuracy"].to_dict() == {
        "sft": 5 / NUM_QUESTIONS,
        "sftkey-tag": 9 / NUM_QUESTIONS,
    }
    assert len(page["tests"]) == 1
    assert len(page["wrong"]) == NUM_QUESTIONS - 5
    assert page["losses"]["loss"].tolist() == [1.0] * 4


def test_a_run_is_given_its_rate_and_what_is_open_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text((ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8"))
    page = names_defined_by(block(PAGE, "python", "train_with"))
    row = SimpleNamespace(strategy="sft", scores=SimpleNamespace(accuracy=0.5))
    page["run"] = create_autospec(page["run"], return_value=RunResult(SimpleNamespace(rows=[row]), [], []))
    assert page["train_with"](0.003) == {"sft": 0.5}
    (config,) = page["run"].call_args.args
    assert config.optimization.learning_rate == 0.003
    assert config.run_dir.name == "rate_0.003"
    page["run"].return_value = RunResult(SimpleNamespace(rows=[row]), [], ["judge: quota"])
    with pytest.raises(sftkey_dist.UserError, match="quota"):
        page["train_with"](0.003)
