import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftkey_dist.config.schema import PromptConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.prompt import PromptEncoder
from sftkey_dist.errors import ModelError

TEMPLATES = [PromptConfig(template="chat"), PromptConfig(template="plain"), PromptConfig(system="Be brief.")]


def encoder(tokenizer, contract, form, prompt=TEMPLATES[0], max_length=4096):
    return ExampleEncoder(tokenizer, PromptEncoder(tokenizer, prompt), contract, form, max_length)


def text_by_segment(encoded, tokenizer, contract):
    ids, segments = np.array(encoded.input_ids), np.array(encoded.segment_ids)
    return {
        name: tokenizer.decode(ids[segments == i].tolist(), clean_up_tokenization_spaces=False)
        for i, name in enumerate(contract.segment_names)
    }


@pytest.mark.parametrize("prompt", TEMPLATES, ids=["chat", "plain", "system"])
@pytest.mark.parametrize("form", list(Form))
def test_every_segment_decodes_to_exactly_its_text(tokenizer, contract, memos, form, prompt):
    encoding = encoder(tokenizer, contract, form, prompt)
    prompts = PromptEncoder(tokenizer, prompt)
    for memo, encoded in zip(memos, encoding.encode(memos), strict=True):
        texts = text_by_segment(encoded, tokenizer, contract)
        assert texts["prompt"] == prompts.text(memo.prompt)
        assert texts["reasoning"] == memo.values["reasoning"]
        assert texts["answer"] == memo.values["answer"]
        assert texts["end_of_turn"] == "<|im_end|>"
        assert texts["answer.open"] == ("<Answer>" if form is Form.TAGGED else contract.delimiter)


def test_prompt_ids_are_those_of_inference(tokenizer, contract, memos):
    (encoded,) = encoder(tokenizer, contract, Form.TAGGED).encode(memos[:1])
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": memos[0].prompt}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert encoded.input_ids[: len(rendered)] == rendered


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_hostile_text_is_encoded_exactly_or_refused(tokenizer, contract, reasoning, answer):
    example = Example("x:1", "prompt", {"reasoning": reasoning, "answer": answer})
    for form in Form:
        (item,) = encoder(tokenizer, contract, form).encode([example])
        if isinstance(item, Refusal):
            assert item.reason
        else:
            texts = text_by_segment(item, tokenizer, contract)
            assert (texts["reasoning"], texts["answer"]) == (reasoning, answer)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"reasoning": "a <Answer> b", "answer": "c"}, "delimiter_in_text"),
        ({"reasoning": "a", "answer": ""}, "empty_answer"),
        ({"reasoning": "a <|im_end|> b", "answer": "c"}, "special_token_in_text"),
        ({"reasoning": "word " * 50, "answer": "c"}, "too_long"),
    ],
)
def test_refusals_have_a_reason_and_do_not_shift_their_neighbours(tokenizer, contract, memos, values, reason):
    encoding = encoder(tokenizer, contract, Form.TAGGED, max_length=300)
    short = Example("ok:1", "p", {"reasoning": "r", "answer": "yes"})
    before, bad, after = encoding.encode([short, Example("bad:1", "p", values), short])
    if reason == "too_long":
        bad = encoder(tokenizer, contract, Form.TAGGED, max_length=40).encode([Example("bad:1", "p", values)])[0]
    assert isinstance(bad, Refusal)
    assert (bad.id, bad.reason) == ("bad:1", reason)
    assert isinstance(before, EncodedExample)
    assert before == after


def test_asking_for_a_missing_chat_template_is_an_error(tokenizer):
    class Bare:
        chat_template = None

    with pytest.raises(ModelError, match=r"prompt\.template=plain"):
        PromptEncoder(Bare(), PromptConfig(template="chat"))
