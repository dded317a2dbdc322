"""Prompts of conversations are, byte for byte, what the chat template writes for a server; nothing of them is lost."""

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.adapters.sources import read_examples, shards_of
from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.errors import ConfigError
from tests.chat_templates import SPECIAL_TOKENS, TEMPLATES, WITHOUT_TOOLS

RESPONSE = "It is fair.\n#### yes"
TOOL = {
    "type": "function",
    "function": {
        "name": "price_of",
        "description": "The price of a thing.",
        "parameters": {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
    },
}
CALL = {"type": "function", "function": {"name": "price_of", "arguments": {"thing": "a bike, größer"}}}
SYSTEM = {"role": "system", "content": "You grade claims."}
ASKED = {"role": "user", "content": "Is 20 a fair price?"}
EARLIER = [{"role": "user", "content": "Good day."}, {"role": "assistant", "content": "Good day to you.\n#### hello"}]
WITH_RESULT = [
    ASKED,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "price_of", "content": "twenty or so"},
]
CONTRACTS = Path(__file__).parents[3] / "configs" / "contracts"
PAPER = ResponseContract()
TOOLS_CONTRACT = ResponseContract.model_validate(yaml.safe_load((CONTRACTS / "tools.yaml").read_text())["contract"])
ROWS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [ASKED]},
    "system": {"messages": [SYSTEM, ASKED]},
    "history": {"messages": [SYSTEM, *EARLIER, ASKED]},
    "no thinking": {"messages": [*EARLIER, ASKED], "chat_template_kwargs": {"enable_thinking": False}},
    "tools": {"messages": [SYSTEM, ASKED], "tools": [TOOL]},
    "calls": {"messages": [SYSTEM, *EARLIER, *WITH_RESULT], "tools": [TOOL]},
}


@pytest.fixture(scope="module", params=TEMPLATES)
def named_tokenizer(request, tokenizer):
    """A tokenizer with the template of a family, and the family's name."""
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS})
    changed.chat_template = TEMPLATES[request.param]
    return request.param, changed


@pytest.fixture
def examples_of(tmp_path):
    """The examples and refusals of a row."""

    def read(row, contract=PAPER, **keys):
        file = tmp_path / "chats.jsonl"
        file.write_text(json.dumps(row) + "\n")
        source = SourceConfig(adapter="messages", path=str(file), **keys)
        return [item for shard in shards_of(source, 7) for item in read_examples(source, contract, shard)]

    return read


@pytest.mark.parametrize("kind", ROWS)
def test_a_prompt_is_what_the_template_writes_for_a_server(named_tokenizer, kind, examples_of):
    name, tokenizer = named_tokenizer
    row = ROWS[kind]
    arguments = row.get("chat_template_kwargs", {})
    if "enable_thinking" in arguments and "enable_thinking" not in TEMPLATES[name]:
        return  # an argument that the template ignores is refused; see test_thinking
    messages = [*row["messages"], {"role": "assistant", "content": RESPONSE}]
    (example,) = examples_of({**row, "messages": messages})
    prompts = PromptEncoder(tokenizer, PromptConfig(template="chat"))
    encoder = ExampleEncoder(tokenizer, prompts, ResponseContract(), Form.UNTAGGED, 2048)
    (encoded,) = encoder.encode([example])
    if name in WITHOUT_TOOLS and "tools" in row:
        assert isinstance(encoded, Refusal)
        assert encoded.reason == "prompt_refused"
        return
    served = {"add_generation_prompt": True, "tools": row.get("tools"), **arguments}
    text = tokenizer.apply_chat_template(row["messages"], tokenize=False, **served)
    assert prompts.text(example) == text
    assert isinstance(encoded, EncodedExample), encoded
    ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False, **served)
    assert encoded.input_ids[: len(ids)] == ids
    assert tokenizer.decode(encoded.input_ids[len(ids) : -1]) == RESPONSE
    assert encoded.input_ids[-1] == prompts.end_of_turn_id


@pytest.mark.parametrize("kind", ["history", "calls"])
def test_what_a_response_follows_is_what_the_template_writes_after_it(named_tokenizer, kind, examples_of):
    """The trained text is the conversation that the template writes with the response in it, up to the turn's end."""
    name, tokenizer = named_tokenizer
    row = ROWS[kind]
    if name in WITHOUT_TOOLS and "tools" in row:
        return
    messages = [*row["messages"], {"role": "assistant", "content": RESPONSE}]
    (example,) = examples_of({**row, "messages": messages})
    prompts = PromptEncoder(tokenizer, PromptConfig(template="chat"))
    whole = tokenizer.apply_chat_template(messages, tokenize=False, tools=row.get("tools"))
    joint = " " if name == "mistral" else ""  # this family writes a space there that no prompt for generation contains
    end = tokenizer.convert_ids_to_tokens(prompts.end_of_turn_id)
    assert whole.startswith(prompts.text(example) + joint + RESPONSE + end)


def test_every_response_is_trained_behind_the_prompt_that_a_server_writes_for_it(named_tokenizer, examples_of):
    _name, tokenizer = named_tokenizer
    thinking = {"role": "assistant", "content": "40", "reasoning_content": "Add 20."}
    further = {"role": "user", "content": "Twice that?"}
    messages = [SYSTEM, ASKED, {"role": "assistant", "content": RESPONSE}, further, thinking]
    examples = examples_of({"messages": messages}, trained_turns="all")
    prompts = PromptEncoder(tokenizer, PromptConfig(template="chat"))
    for example, place in zip(examples, (2, 4), strict=True):
        before = tokenizer.apply_chat_template(messages[:place], tokenize=False, add_generation_prompt=True)
        assert prompts.text(example) == before
        assert example.id.endswith(f"chats.jsonl:1, message {place + 1}")
    assert [dict(example.values) for example in examples] == [
        {"reasoning": "It is fair.", "answer": "yes"},
        {"reasoning": "Add 20.", "answer": "40"},
    ]


def test_a_template_that_drops_earlier_thinking_is_trained_as_it_writes(tokenizer, examples_of):
    qwen3 = copy.deepcopy(tokenizer)
    qwen3.chat_template = TEMPLATES["qwen3"]
    first = {"role": "assistant", "content": "20", "reasoning_content": "A bike costs 20."}
    messages = [ASKED, first, {"role": "user", "content": "Sure?"}, first]
    one, two = examples_of({"messages": messages}, trained_turns="all")
    prompts = PromptEncoder(qwen3, PromptConfig(template="chat"))
    assert one.values == two.values == {"reasoning": "A bike costs 20.", "answer": "20"}
    assert "A bike costs" not in prompts.text(two)
    assert "\n20<|im_end|>" in prompts.text(two)


def test_a_call_of_a_tool_is_a_segment_and_what_it_returns_is_part_of_the_prompt(tokenizer, examples_of):
    qwen3 = copy.deepcopy(tokenizer)
    qwen3.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS})
    qwen3.chat_template = TEMPLATES["qwen3"]
    thought = {"reasoning_content": "Look it up."}
    called = {"role": "assistant", "content": "", **thought, "tool_calls": [CALL | {"id": "1"}]}
    answered = {"role": "assistant", "content": "yes", "reasoning_content": "It says 20."}
    result = {"role": "tool", "tool_call_id": "1", "content": "twenty or so"}
    messages = [ASKED, called, result, answered]
    row = {"messages": messages, "tools": [TOOL]}
    call, answer = examples_of(row, TOOLS_CONTRACT, trained_turns="all")
    assert call.values == {
        "reasoning": "Look it up.",
        "tool_call": '{"name": "price_of", "arguments": {"thing": "a bike, größer"}}',
    }
    assert answer.values == {"reasoning": "It says 20.", "answer": "yes"}
    assert answer.prompt == ASKED["content"]
    assert [turn.role for turn in answer.tool_turns] == ["assistant", "tool"]
    prompts = PromptEncoder(qwen3, PromptConfig(template="chat"))
    encoder = ExampleEncoder(qwen3, prompts, TOOLS_CONTRACT, Form.TAGGED, 2048)
    for example, place in ((call, 1), (answer, 3)):
        (encoded,) = encoder.encode([example])
        whole = qwen3.apply_chat_template(messages[: place + 1], tools=[TOOL], tokenize=False)
        assert whole.removesuffix("\n") == qwen3.decode(encoded.input_ids)  # as the model's own template writes it


ROWS_OF_OTHER_SHAPES = {
    "ShareGPT": {
        "conversations": [
            {"from": "system", "value": "You grade claims."},
            {"from": "human", "value": "Is 20 a fair price?"},
            {"from": "gpt", "value": RESPONSE},
        ]
    },
    "parts of text": {
        "messages": [
            SYSTEM,
            {
                "role": "user",
                "content": [{"type": "text", "text": "Is 20 "}, {"type": "text", "text": "a fair price?"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": RESPONSE}], "tool_calls": None},
        ]
    },
}


def test_names_of_ones_own_and_a_mapping_of_lists_are_the_same_conversation(examples_of):
    (expected,) = examples_of({"messages": [SYSTEM, ASKED, {"role": "assistant", "content": RESPONSE}]})
    texts = [SYSTEM["content"], ASKED["content"], RESPONSE]
    own = [{"speaker": who, "text": text} for who, text in zip(("Desk", "Customer", "Agent"), texts, strict=True)]
    roles = {"Desk": "system", "Customer": "user", "Agent": "assistant"}
    renamed = {"messages": "turns", "columns": {"role": "speaker", "content": "text"}, "roles": roles}
    assert examples_of({"turns": own}, **renamed) == [expected]
    assert examples_of({"messages": {"role": ["system", "user", "assistant"], "content": texts}}) == [expected]
    (refusal,) = examples_of({"messages": {"role": ["user"], "content": []}})
    assert refusal.reason == "missing_field"
    with pytest.raises(ConfigError, match="a message has no field 'answer'; it has role, content"):
        examples_of({"messages": []}, columns={"answer": "text"})


@pytest.mark.parametrize("shape", ROWS_OF_OTHER_SHAPES)
def test_other_shapes_are_the_same_conversation(shape, examples_of):
    (expected,) = examples_of({"messages": [SYSTEM, ASKED, {"role": "assistant", "content": RESPONSE}]})
    assert examples_of(ROWS_OF_OTHER_SHAPES[shape]) == [expected]


def test_calls_in_sharegpt_and_as_json_texts_are_the_same_calls(examples_of):
    openai = [
        ASKED,
        {"role": "assistant", "tool_calls": [{"id": None, "function": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": RESPONSE},
    ]
    sharegpt = [
        {"from": "human", "value": ASKED["content"]},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": RESPONSE},
    ]
    (one,) = examples_of({"messages": openai, "tools": '[{"name": "f"}]'})
    (other,) = examples_of({"conversations": sharegpt, "tools": [{"name": "f"}]})
    assert one == other
    assert one.tool_turns[0].fields == {
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]
    }


def test_flags_in_the_data_choose_the_trained_responses(examples_of):
    def said(**flags):
        return {"role": "assistant", "content": RESPONSE, **flags}

    messages = [{"role": "assistant", "content": "Hello!"}, ASKED, said(weight=0), ASKED, said(weight=1), ASKED, said()]
    examples = examples_of({"messages": messages}, trained_turns="all")
    assert [example.id.rpartition(" ")[2] for example in examples] == ["5", "7"]
    assert examples[0].last_turn is examples[1]
    assert examples[1].last_turn is None
    (none,) = examples_of({"messages": [ASKED, said(train=False)]}, trained_turns="all")
    assert none.reason == "no_trained_turn"


def test_one_unusable_response_does_not_cost_the_others(examples_of):
    messages = [ASKED, {"role": "assistant", "content": "yes"}, ASKED, {"role": "assistant", "content": RESPONSE}]
    refused, kept = examples_of({"messages": messages}, trained_turns="all")
    assert refused.id.endswith("chats.jsonl:1, message 2")
    assert refused.reason == "not_segmented"
    assert kept.values["answer"] == "yes"


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": [CALL]}]}, "no_segment_of_calls", "tools.yaml"),
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": [{"function": {}}]}]}, "invalid_tool_call", "name"),
        (
            {"messages": [ASKED, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x="}]}]},
            "invalid_tool_call",
            "arguments of the call of 'f'",
        ),
        ({"messages": [ASKED, {"role": "assistant", "content": RESPONSE}], "tools": [{}]}, "invalid_tools", "no name"),
        ({"messages": [ASKED, {"role": "assistant", "content": RESPONSE}], "tools": "{}"}, "invalid_tools", "list"),
        (
            {"messages": [ASKED, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": "\ud83d"}}]}]},
            "not_unicode",
            "a call of 'f' contains a lone surrogate",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": RESPONSE}], "tools": [{"name": "f", "x": "\ud83d"}]},
            "not_unicode",
            "a tool contains a lone surrogate",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not_text", "image_url"),
        ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "empty_field", "without text"),
        ({"messages": [ASKED, {"role": "developer", "content": "x"}]}, "unknown_role", "developer"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row, reason, detail, examples_of):
    (refusal,) = examples_of(row)
    assert refusal.reason == reason
    assert detail in refusal.detail


def test_a_template_that_hides_part_of_a_conversation_refuses_the_row(tokenizer, examples_of):
    hiding = copy.deepcopy(tokenizer)
    hiding.chat_template = "{% for m in messages if m.role != 'tool' %}[{{ m.content }}]{% endfor %}!"
    row = {"messages": [*WITH_RESULT, {"role": "assistant", "content": RESPONSE}]}
    prompts = PromptEncoder(hiding, PromptConfig(template="chat"))
    encoder = ExampleEncoder(hiding, prompts, ResponseContract(), Form.TAGGED, 2048)
    (refusal,) = encoder.encode(examples_of(row))
    assert refusal.reason == "prompt_refused"
    assert "does not show the call of 'price_of'" in refusal.detail


def test_tools_and_their_results_tell_examples_apart(examples_of):
    def hashes(**changes):
        result = {"role": "tool", "content": changes.pop("result", "2")}
        messages = [*WITH_RESULT[:2], result, {"role": "assistant", "content": RESPONSE}]
        (example,) = examples_of({"messages": messages, **changes})
        return example_hashes(example)

    assert len({hashes(), hashes(result="3"), hashes(tools=[TOOL])}) == 3


def test_fields_that_a_column_of_structures_adds_are_no_arguments_and_no_properties(tmp_path):
    rows = [
        {
            "messages": [ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}],
            "tools": [{"type": "function", "function": {"name": call["function"]["name"], "parameters": parameters}}],
        }
        for call, parameters in (
            (CALL, {"type": "object", "properties": {"thing": {"type": "string"}}}),
            (
                {"type": "function", "function": {"name": "pay", "arguments": {"amount": 12.5, "to": [{"name": "B"}]}}},
                {"type": "object", "properties": {"amount": {"type": "number"}}},
            ),
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "calls.parquet")
    source = SourceConfig(adapter="messages", path=str(tmp_path / "calls.parquet"))
    examples = [item for shard in shards_of(source, 7) for item in read_examples(source, TOOLS_CONTRACT, shard)]
    key = TOOLS_CONTRACT.tool_call_segment
    assert [json.loads(example.values[key])["arguments"] for example in examples] == [
        {"thing": "a bike, größer"},
        {"amount": 12.5, "to": [{"name": "B"}]},
    ]
    assert [example.tools for example in examples] == [tuple(row["tools"]) for row in rows]


def test_null_stays_where_a_text_says_it(examples_of):
    """Only a column of structures adds fields that nobody has written."""
    function = {"name": "pay", "arguments": {"to": "B", "due": None}}
    as_text = json.dumps([{"type": "function", "function": function}])
    arguments_as_text = [{"function": function | {"arguments": json.dumps(function["arguments"])}}]
    for calls in (as_text, arguments_as_text):
        response = {"role": "assistant", "content": "", "tool_calls": calls}
        (example,) = examples_of({"messages": [ASKED, response]}, TOOLS_CONTRACT)
        assert json.loads(example.values[TOOLS_CONTRACT.tool_call_segment])["arguments"] == function["arguments"]
    spoken = {"from": "function_call", "value": json.dumps(function)}
    (example,) = examples_of({"conversations": [{"from": "human", "value": "pay"}, spoken]}, TOOLS_CONTRACT)
    assert json.loads(example.values[TOOLS_CONTRACT.tool_call_segment])["arguments"] == function["arguments"]
