"""What the guard judges responses by: the references and questions of held-out rows, restored from their tokens."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.building.task import Encoding
from sftkey_dist.data.example import Example
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.record import make_record
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.training.validation import guard as guard_module
from sftkey_dist.training.validation.guard import Guard, _restored_examples
from tests.stage_job import make_stage_job

ANSWERS = (r"\frac{1}{2}", 'the "long" way', "first line\nsecond line", "42")
CONTRACTS = {
    "json": ResponseContract(container="json"),
    "tags": ResponseContract(),
    "plain": ResponseContract(container="plain"),
}


def restored(folder, model, contract, rows, check: AnswerCheck) -> tuple[list[Example], EvaluationSettings]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(adapter="records", path=str(folder / "rows.jsonl"))
    test = SourceConfig(adapter="decision_memos", split="test", limit=1)
    data = DataConfig(train=source, test=test, store_dir=folder / "store", max_length_tokens=512)
    store = prepare_store("train", data, Encoding(Form.TAGGED, contract, PromptConfig(), 512, model, False))
    job = make_stage_job(folder / "stage", model, store.path, [0.0, 1.0] + [1.0] * 6)
    settings = EvaluationSettings(
        Form.TAGGED, contract, PromptConfig(), EvaluationConfig(), {"": {"answer": check}}, 0, False
    )
    examples = _restored_examples(store, np.arange(len(store)), job, settings)
    return [example for example, _ in examples], settings


def verdict(example: Example, settings: EvaluationSettings, answer: str) -> str:
    pieces = settings.contract.render({"reasoning": "so", "answer": answer}, settings.form)
    generation = Generation("".join(piece.text for piece in pieces), 9, truncated=False)
    return make_record(example, generation, settings).verdict.value


@pytest.mark.parametrize("container", CONTRACTS)
def test_a_perfect_response_is_right_in_every_container(tmp_path, tiny_model, container):
    rows = [{"prompt": f"Question {n}", "reasoning": "so", "answer": answer} for n, answer in enumerate(ANSWERS)]
    examples, settings = restored(tmp_path, tiny_model, CONTRACTS[container], rows, "exact")
    assert {example.values["answer"] for example in examples} == set(ANSWERS)
    assert [verdict(example, settings, example.values["answer"]) for example in examples] == ["correct"] * 4
    assert verdict(examples[0], settings, "another") == "incorrect"


def test_options_are_found_in_the_question(tmp_path, tiny_model):
    rows = [{"prompt": "What wilts?\nA. a flower\nB. a stone", "reasoning": "so", "answer": "A"}]
    (example,), settings = restored(tmp_path, tiny_model, CONTRACTS["tags"], rows, "option")
    assert verdict(example, settings, "a flower") == "correct"
    assert verdict(example, settings, "a stone") == "incorrect"


def test_a_model_is_asked_what_it_was_trained_on_greedily_and_unguided(tmp_path, tiny_model, contract, monkeypatch):
    """Though an evaluation samples: a guard must not choose by luck."""
    rows = [{"prompt": "Question " * n, "reasoning": "so", "answer": "42"} for n in (3, 1, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = SourceConfig(adapter="decision_memos", split="test", limit=1)
    train = SourceConfig(adapter="records", path=str(tmp_path / "rows.jsonl"))
    data = DataConfig(train=train, test=test, store_dir=tmp_path / "store", max_length_tokens=512)
    store = prepare_store("train", data, Encoding(Form.TAGGED, contract, PromptConfig(), 512, tiny_model, False))
    evaluation = EvaluationConfig.model_validate(
        {"guided": True, "batch_size": 2, "max_new_tokens": 9, "sampling": {"num_samples": 3, "temperature": 0.7}}
    )
    checks = {"": {"answer": "exact"}}
    settings = EvaluationSettings(Form.TAGGED, contract, PromptConfig(), evaluation, checks, 0, False)
    job = make_stage_job(tmp_path / "stage", tiny_model, store.path, [0.0, 1.0] + [1.0] * 6)
    guard, asked = object.__new__(Guard), []
    guard._job, guard._assessment = job, settings
    guard._examples = _restored_examples(store, np.arange(3), job, settings)

    class Generator:
        def __init__(self, *_):
            pass

        def answer(self, prompts, decoding):
            asked.extend((prompt, decoding) for prompt in prompts)
            return [[Generation("", 0, truncated=False)] for _ in prompts]

        def close(self):
            pass

    monkeypatch.setattr(guard_module, "LocalGenerator", Generator)
    for rank in (0, 1):
        guard._engine = SimpleNamespace(rank=rank, world_size=2)
        guard._records_of_this_rank(tiny_model)
    stored = [store.example(index) for index in range(3)]
    prompts = [ids[segments == 0].tolist() for ids, segments in stored]
    assert sorted(prompt for prompt, _ in asked) == sorted(prompts), "each by one rank"
    assert {(d.num_samples, d.temperature, d.guide, d.max_new_tokens) for _, d in asked} == {(1, 0.0, None, 9)}
