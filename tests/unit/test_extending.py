"""The examples of the documentation do what the pages say of them."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

import sftkey_dist
from sftkey_dist.config import load_config
from sftkey_dist.config.yaml_text import read_yaml
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.adapters.columns import RowError
from sftkey_dist.data.adapters.sources import read_examples, shards_of
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.answers.checks import Case, make_check
from sftkey_dist.evaluation.judge.template import Question, load_template
from sftkey_dist.files import write_json_atomically
from sftkey_dist.pipeline.tracking.evaluations import track_evaluation
from sftkey_dist.pipeline.tracking.runs import stage_run, strategy_run
from sftkey_dist.run_dir import RunDir
from sftkey_dist.tracking import Tracker
from tests.finished_run import write_run
from tests.markdown import ROOT, block, snippets_of

PAGE = ROOT / "docs" / "extending.md"
BASE = ROOT / "configs" / "quickstart.yaml"
ACCOUNTS = [("1234-05", "1234-01"), ("1235-01", "1234-01"), ("1234-01", "1234")]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's Python defines, run in order."""
    names: dict[str, Any] = {"__name__": "page"}
    for snippet in snippets_of(PAGE):
        if snippet.language == "python":
            exec(compile(snippet.text, str(snippet), "exec"), names)
    return names


def test_the_adapter_reads_its_row_as_a_script(page, tmp_path):
    row = json.loads(block(PAGE, "json", "rationale"))
    content = page["aqua"](row)
    assert content.values == {"reasoning": row["rationale"], "answer": "B"}
    with pytest.raises(RowError, match="'correct' is 'Z'"):
        page["aqua"](row | {"correct": "Z"})

    (tmp_path / "raw.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    page["convert"](tmp_path / "raw.jsonl", tmp_path / "aqua_train.jsonl")
    settings = read_yaml(block(PAGE, "yaml", "aqua_train.jsonl"))["data"]["train"]
    config = load_config([BASE], [f"data.train={json.dumps(settings | {'path': str(tmp_path / 'aqua_train.jsonl')})}"])
    (source,), contract = config.data.train, ResponseContract()
    (shard,) = shards_of(source, 100)
    (example,) = read_examples(source, contract, shard)
    assert isinstance(example, Example)
    assert (example.prompt, example.values) == (content.prompt, content.values)
    rendered = "".join(piece.text for piece in contract.render(example.values, Form.TAGGED))
    assert contract.parse(rendered, Form.TAGGED).values == content.values


def test_a_file_is_a_data_set_with_an_adapter_and_a_check(page, tmp_path):
    """In a process of its own: which data sets there are is read when the configuration's schema is loaded."""
    module = block(PAGE, "python", "def aqua") + block(PAGE, "python", "DATA_SET =")
    (tmp_path / "aqua.py").write_text(module, encoding="utf-8")
    script = """
import json, sys
import sftkey_dist.data.data_sets as data_sets
data_sets.__path__.append(sys.argv[1])
from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.layouts import make_adapter
from sftkey_dist.evaluation.answers.choose import choose_checks
source, contract = SourceConfig(adapter="aqua", path="x"), ResponseContract()
(content,) = make_adapter(source, contract)(json.loads(sys.argv[2]))
print(json.dumps([content.values, choose_checks([source], contract, EvaluationConfig())]))
"""
    row = block(PAGE, "json", "rationale")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), row], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values, checks = json.loads(done.stdout)
    assert values == page["aqua"](json.loads(row)).values
    assert checks == {"aqua/train": {"answer": "option"}}


def test_the_tracker_has_the_protocol_and_is_told_of_stages_and_evaluations(page, tmp_path):
    tracker = page["CsvTracker"](tmp_path / "metrics.csv")
    protocol = {name: of for name, of in vars(Tracker).items() if not name.startswith("_")}
    assert len(protocol) > 10
    for name, of in protocol.items():
        assert list(inspect.signature(getattr(tracker, name)).parameters) == list(inspect.signature(of).parameters)[1:]

    config, run = load_config([BASE]), RunDir(write_run(tmp_path / "run", {"sft-tag": 7}))
    of_strategy = strategy_run(config, run, "sft-tag", "tagged", "abc", "123", tracker)
    with (
        of_strategy as parent,
        stage_run(config, run, "sft-tag", "full", "abc", {"store": "123"}, parent, tracker) as stage,
    ):
        tracker.log_steps(stage, [{"step": 3, "loss": 1.5, "segments": {"answer": {"nll": 2.0}}}])
    evaluation = run.path / "evaluation" / "sft-tag"
    scores = json.loads((evaluation / "scores.json").read_text(encoding="utf-8")) | {"scoring_digest": "d"}
    (evaluation / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    (evaluation / "review.jsonl").touch()
    track_evaluation(config, run, "sft-tag", evaluation, parent, tracker)
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert f"{stage},3,loss,1.5" in lines
    assert f"{parent},,accuracy,{7 / 20}" in lines


def test_the_script_runs_with_the_tracker(page, monkeypatch):
    run = create_autospec(page["run"])
    monkeypatch.setitem(page, "run", run)
    page["run_with_csv"]([BASE], ["seed=3"])
    config, tracker = run.call_args.args
    assert config.seed == 3
    assert isinstance(tracker, page["CsvTracker"])


def test_the_public_interface_is_there_and_is_loaded_when_it_is_used():
    for name in sftkey_dist.__all__:
        assert callable(getattr(sftkey_dist, name))
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = sftkey_dist.train
    script = "import sys, sftkey_dist; print(sorted({'pydantic', 'numpy', 'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_answer_check_is_loaded_by_its_place_and_judges(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checks.py").write_text(block(PAGE, "python", "same_account"), encoding="utf-8")
    settings = read_yaml(block(PAGE, "yaml", "same_account"))["evaluation"]["answer_check"]
    check = make_check(load_config([BASE], [f"evaluation.answer_check={json.dumps(settings)}"]).evaluation.answer_check)
    verdicts = [check(Case(answer, reference)).verdict.value for answer, reference in ACCOUNTS]
    assert verdicts == ["correct", "incorrect", "unjudged"]


def test_the_reward_of_a_run_has_the_signatures_of_verl_and_trl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config([BASE], ["run_dir=runs/mine"])
    write_json_atomically(RunDir(Path("runs/mine")).config, config.model_dump(mode="json"))
    names: dict[str, Any] = {}
    exec(block(ROOT / "docs" / "evaluation.md", "python", "Reward.from_run"), names)
    said = "<Thinking>Income is steady.</Thinking><Answer>approve</Answer>"
    found = names["compute_score"](data_source="mine", solution_str=said, ground_truth="approve", extra_info={})
    assert found == {"score": 1.0, "acc": 1.0, "format": 1.0}
    completions = [[{"role": "assistant", "content": said}]]
    assert names["reward_func"](prompts=["?"], completions=completions, ground_truth=["reject"]) == [pytest.approx(0.3)]


def test_the_judges_template_is_one(tmp_path):
    template = tmp_path / "account_code.txt"
    template.write_text(block(PAGE, "text", "{reference}"), encoding="utf-8")
    chat = load_template(str(template)).chat(Question("Which code?", "1234-01", "1235-01"))
    assert "JSON strings" in chat.system
    assert '"1234-01"' in chat.user


def test_the_readmes_configuration_reads_the_rows_that_it_describes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config_file, rows = tmp_path / "my.yaml", tmp_path / "memos" / "train.csv"
    config_file.write_text(block(ROOT / "README.md", "yaml", "run_dir: runs/mine"), encoding="utf-8")
    rows.parent.mkdir()
    row = "A van for 12000.,Income is steady."
    rows.write_text(f"Application,Notes,Decision\n{row},approve\n{row}\n", encoding="utf-8")
    config = load_config([config_file])
    (source,) = config.data.train
    (shard,) = shards_of(source, 100)
    example, refusal = read_examples(source, config.contract, shard)
    assert isinstance(example, Example)
    assert refusal.reason == "wrong_columns"
    plain = "".join(piece.text for piece in config.contract.render(example.values, Form.UNTAGGED))
    assert plain == "Income is steady.\nDecision: approve"
    assert len(config.strategies) == 4


class Nll(float):
    """Stands for a loss: backward adds it to those of the step."""

    of_the_step: list[float]

    def __new__(cls, value, of_the_step):
        loss = super().__new__(cls, value)
        loss.of_the_step = of_the_step
        return loss

    def __truediv__(self, weight):
        return Nll(float(self) / weight, self.of_the_step)

    def backward(self):
        self.of_the_step.append(float(self))


def test_the_plans_loop_in_another_trainer_divides_by_the_weight_of_the_whole_step():
    counts = np.array([[5, 1 + number % 7] for number in range(128)])
    steps, of_the_step = [], []
    names = {
        "counts": counts,
        "world": 1,
        "rank": 0,
        "resumed_at": 0,
        "dataset": range(128),
        "collate": list,
        "DataLoader": lambda dataset, batch_sampler, collate_fn: map(collate_fn, batch_sampler),
        "model": None,
        "weighted_nll_sum": lambda _, batch: Nll(counts[batch, 1].sum(), of_the_step),
        "gradients": None,
        "all_reduce_sum": lambda _: None,
        "optimizer": SimpleNamespace(step=lambda: (steps.append(sum(of_the_step)), of_the_step.clear())),
    }
    exec(block(ROOT / "docs" / "training.md", "python", "RankBatchSampler"), names)
    assert steps == pytest.approx([1.0] * 6)  # 3 epochs of 2 steps, one nat a token
