"""Which samples are accepted for training, in either form of a response."""

import pytest

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.encoding.encode import ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.acceptance import judge_samples
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.settings import EvaluationSettings

WRITTEN = {Form.TAGGED: "<Thinking>{}</Thinking>\n<Answer> {} </Answer>", Form.UNTAGGED: "{}\n#### {}"}


@pytest.fixture
def judge(tokenizer, contract):
    def made(form, answers, most_tokens=60, truncated=False, reference="4", check="numeric"):
        settings = EvaluationSettings(
            form, contract, PromptConfig(), EvaluationConfig(), {"d": {"answer": check}}, 0, False
        )
        encoder = ExampleEncoder(tokenizer, PromptEncoder(tokenizer, PromptConfig()), contract, form, most_tokens)
        example = Example("row", "2 + 2?", {"reasoning": "two and two", "answer": reference}, data_set="d")
        texts = [WRITTEN[form].format(*answer) if isinstance(answer, tuple) else answer for answer in answers]
        (found,) = judge_samples([(example, [Generation(text, 5, truncated) for text in texts])], settings, encoder)
        return found

    return made


@pytest.mark.parametrize("form", Form)
def test_the_first_right_response_that_keeps_the_contract_is_chosen(judge, form, tokenizer):
    found = judge(form, ["4", ("so", "5"), ("I add", "4.0"), ("otherwise", "4")])
    assert found.outcomes == ("broken_structure", "wrong_answer", "accepted", "accepted")
    text = tokenizer.decode(found.chosen.input_ids)
    assert "I add" in text, "its own reasoning"
    assert "4.0" in text, "its own answer"
    assert "two and two" not in text


@pytest.mark.parametrize("form", Form)
def test_what_cannot_be_trained_is_named(judge, form):
    assert judge(form, [("so", "4")], truncated=True).outcomes == ("truncated",)
    assert judge(form, [("so " * 90, "4")]).outcomes == ("too_long",)
    assert judge(form, [("so", "4")], reference="who knows").outcomes == ("unjudged",)
    assert judge(form, [("so", "4"), ("so " * 90, "4")]).outcomes == ("accepted", "too_long")
    assert judge(form, [("so " * 90, "4"), "4"]).chosen is None
