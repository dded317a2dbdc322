"""A run is done again when what it depends on has changed, whatever file contains it."""

from pathlib import Path

import pytest

from sftkey_dist.config import load_config
from sftkey_dist.pipeline.study.run_digest import made_of

CONFIG = """
run_dir: run
model: {path: ./model}
data:
  train: {adapter: records, path: rows.jsonl}
  test: {adapter: decision_memos, limit: 4}
prompt: {chat_template: template.jinja}
evaluation:
  answer_check: {function: "checks.py:same"}
  judge: {judges: [{path: ./judge}], template: question.txt}
"""
READ = ["rows.jsonl", "model/config.json", "template.jinja", "checks.py", "judge/model.safetensors", "question.txt"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in READ:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("{}\n")
    Path("study.yaml").write_text(CONFIG)
    return tmp_path


def digest(*overrides: str) -> str:
    return made_of(load_config([Path("study.yaml")], overrides))


def test_every_file_that_a_run_reads_counts(here):
    seen = {digest()}
    for number, name in enumerate(READ, start=1):
        Path(name).write_text(f"{number}\n")
        seen.add(digest())
        assert len(seen) == number + 1, name


def test_a_function_of_an_installed_module_counts(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    function = "evaluation.answer_check={function: 'rules_of_mine:same'}"
    nowhere = digest(function)
    Path("rules_of_mine.py").write_text("1\n")
    first = digest(function)
    Path("rules_of_mine.py").write_text("2\n")
    assert len({nowhere, first, digest(function)}) == 3


def test_what_changes_no_result_does_not_count(here):
    before = digest()
    for name in ("model/.cache", "model/__pycache__/code.pyc", "other.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("new")
    assert digest() == before
    assert digest("cluster.num_workers=5", "tracking.enabled=false", "run_dir=elsewhere") == before


def test_accelerators_count_where_they_change_the_precision(here):
    assert digest("cluster.gpus_per_worker=1") != digest()
    chosen = "training.precision=bfloat16"
    assert digest(chosen, "cluster.gpus_per_worker=1") == digest(chosen)
