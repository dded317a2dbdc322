"""Chat templates of thinking models: what opens a tag, the contract closes; nothing is trained inside another tag."""

import copy
import json

import pytest

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract, Segment
from sftkey_dist.data.adapters.sources import read_examples, shards_of
from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example, Refusal

ALWAYS = "<think>\n"
"""As DeepSeek-R1's and QwQ's templates end every prompt."""
HYBRID = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
"""As Qwen3's ends a prompt."""
OPEN_BY_DEFAULT = "{% if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}{% endif %}"
NATIVE = ResponseContract(
    container="plain",
    segments=(
        Segment(name="reasoning", delimiter="<think>\n"),
        Segment(name="answer", key=True, delimiter="\n</think>\n\n"),
    ),
)
EXAMPLE = Example("x:1", "What is 6 x 7?", {"reasoning": "Six sevens.", "answer": "42"})
WHOLE = "<think>\nSix sevens.\n</think>\n\n42"


def tokenizer_ending_with(tokenizer, end):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template += "{% if add_generation_prompt %}" + end + "{% endif %}"
    return changed


def encode(tokenizer, contract, example=EXAMPLE, form=Form.TAGGED):
    (item,) = ExampleEncoder(tokenizer, PromptEncoder(tokenizer, PromptConfig()), contract, form, 512).encode([example])
    return item


def trained_text(tokenizer, item, contract):
    prompt = contract.segment_names.index("prompt")
    kept = [i for i, segment in zip(item.input_ids, item.segment_ids, strict=True) if segment != prompt]
    return tokenizer.decode(kept[:-1])


@pytest.mark.parametrize(("end", "trained"), [("", WHOLE), (ALWAYS, WHOLE.removeprefix("<think>\n")), (HYBRID, WHOLE)])
def test_prompt_and_response_are_the_whole_conversation_with_one_pair_of_tags(tokenizer, end, trained):
    thinking = tokenizer_ending_with(tokenizer, end)
    item = encode(thinking, NATIVE)
    assert isinstance(item, EncodedExample)
    assert trained_text(thinking, item, NATIVE) == trained
    assert thinking.decode(item.input_ids).count("<think>") == 1
    parsed = NATIVE.parse(trained, Form.TAGGED)
    assert (parsed.keeps_contract, dict(parsed.values)) == (True, dict(EXAMPLE.values))


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("opening", ["<think>", "<think>\n", "[THINK]", "<|START_THINKING|>"])
def test_a_contract_that_does_not_close_what_the_prompt_opens_is_refused_with_the_remedy(tokenizer, opening, form):
    item = encode(tokenizer_ending_with(tokenizer, opening), ResponseContract(), form=form)
    assert isinstance(item, Refusal)
    assert item.reason == "inside_thinking"
    for remedy in ("configs/contracts/thinking.yaml", "prompt.template_arguments", "prompt.chat_template"):
        assert remedy in item.detail


def test_a_response_does_not_think_again_after_an_empty_thought(tokenizer):
    thinking = tokenizer_ending_with(tokenizer, HYBRID)
    off = Example("x:1", "p", EXAMPLE.values, template_arguments={"enable_thinking": False})
    assert encode(thinking, NATIVE, off).reason == "after_thinking"
    assert isinstance(encode(thinking, ResponseContract(), off), EncodedExample)


def test_another_spelling_of_the_opening_is_named(tokenizer):
    contract = ResponseContract(
        container="plain",
        segments=(
            Segment(name="reasoning", delimiter="<think>"),
            Segment(name="answer", key=True, delimiter="</think>"),
        ),
    )
    item = encode(tokenizer_ending_with(tokenizer, ALWAYS), contract)
    assert (item.reason, repr("<think>\n") in item.detail) == ("inside_thinking", True)


def test_what_a_user_writes_opens_nothing(tokenizer):
    example = Example("x:1", "Write <think>", EXAMPLE.values)
    assert isinstance(encode(tokenizer, ResponseContract(), example), EncodedExample)
    plain = PromptEncoder(tokenizer, PromptConfig(template="plain", plain="{prompt}"))
    (item,) = ExampleEncoder(tokenizer, plain, ResponseContract(), Form.TAGGED, 512).encode([example])
    assert isinstance(item, EncodedExample)


def test_a_run_and_a_row_choose_arguments_and_the_row_has_the_last_word(tokenizer):
    hybrid = tokenizer_ending_with(tokenizer, OPEN_BY_DEFAULT)
    prompts = PromptEncoder(hybrid, PromptConfig())
    for arguments, opens in (({}, True), ({"enable_thinking": False}, False), ({"enable_thinking": True}, True)):
        text = prompts.text(Example("x:1", "p", {}, template_arguments=arguments))
        expected = hybrid.apply_chat_template(
            [{"role": "user", "content": "p"}], tokenize=False, add_generation_prompt=True, **arguments
        )
        assert text == expected
        assert text.endswith(ALWAYS) == opens
    unknown = Example("x:1", "p", EXAMPLE.values, template_arguments={"enable_thinkin": False})
    item = encode(hybrid, NATIVE, unknown)
    assert (item.reason, "did you mean 'enable_thinking'?" in item.detail) == ("prompt_refused", True)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"enable_thinking": False, "budget": None}, {"enable_thinking": False}),
        ('{"enable_thinking": true}', {"enable_thinking": True}),
        (None, {}),
        ("", {}),
        ([1], "invalid_arguments"),
        ("enable_thinking", "invalid_arguments"),
        ({"messages": []}, "invalid_arguments"),
        ('{"budget": ' + "9" * 5000 + "}", "invalid_arguments"),
        ("[" * 100_000, "invalid_arguments"),
        ({"bos_token": ""}, "invalid_arguments"),
    ],
)
def test_a_column_has_the_arguments_of_its_row(tmp_path, contract, column, expected):
    row = {"prompt": "p", "reasoning": "r", "answer": "a", "chat_template_kwargs": column}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    source = SourceConfig(adapter="records", path=str(tmp_path / "rows.jsonl"))
    (item,) = read_examples(source, contract, shards_of(source, 10)[0])
    assert (item.reason if isinstance(item, Refusal) else item.template_arguments) == expected
