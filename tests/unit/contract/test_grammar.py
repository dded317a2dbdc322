"""The grammar of a contract accepts what a training example writes, and nothing that the contract does not read."""

import json
import random
from functools import partial
from pathlib import Path

import jsonschema
import pytest
import yaml
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from sftkey_dist.contract import Check, ContractError, Form, ResponseContract, Segment
from sftkey_dist.contract.grammar import response_grammar
from sftkey_dist.contract.response_schema import response_schema
from sftkey_dist.data.encoding.thinking import continuing
from sftkey_dist.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs" / "contracts"
LABELS = Check(one_of=("approve", 'say "no"', "<review>"))
CONTRACTS = {
    **{
        file.stem: ResponseContract.model_validate(yaml.safe_load(file.read_text())["contract"])
        for file in sorted(CONFIGS.glob("*.yaml"))
    },
    "labels": ResponseContract(segments=(Segment(name="reasoning"), Segment(name="answer", key=True, check=LABELS))),
    "json labels": ResponseContract(
        container="json",
        segments=(Segment(name="reasoning", required=False), Segment(name="answer", key=True, check=LABELS)),
    ),
    "a delimiter that overlaps itself": ResponseContract(
        container="plain", delimiter="===", segments=(Segment(name="reasoning"), Segment(name="answer", key=True))
    ),
    "one of two keys": ResponseContract(
        container="json",
        segments=(
            Segment(name="a", key=True, required=False, delimiter="A: "),
            Segment(name="b", key=True, required=False, delimiter="B: "),
        ),
    ),
}
FREE = ["a", "b c", "<", "\n", " ", "ä", '"', "\\", "\\n", "\\u0041", "{", "=", "</", "Thinking>", "\x1c", "/", "]"]
FITTING = {
    "number": ["12", "-1", "1.5", "x"],
    "regex": ["6420-10", "2026-03-01", "1"],
    "json_schema": ['["a"]', "[]", '{"name": "f", "arguments": {}}', '{"name": "x"}', "[1]"],
}


def a_value(rng, segment):
    """A text that often, but not always, is what the segment's check asks for."""
    rule = next(iter(segment.check.model_dump(exclude_none=True)), None) if segment.check else None
    if rng.random() < 0.8 and rule is not None:
        return rng.choice(segment.check.one_of or FITTING[rule])
    if segment.value == "json":
        return rng.choice(["1", "[1, 2]", "null", '"s"', "{}"])
    return "".join(rng.choice(FREE) for _ in range(rng.randint(0, 4)))


def pieces_of(rng, contract, form):
    """The pieces of a text that looks like a response."""
    segments = {segment.name: segment for segment in contract.segments}
    outline = rng.choice(contract.outlines(form))
    texts = [piece.text if piece.is_mark else a_value(rng, segments[piece.segment]) for piece in outline]
    if rng.random() < 0.1:
        place = rng.randrange(len(texts))
        texts[place] = texts[place][:1] + rng.choice(["x", " ", "<Answer>", "\n", '"']) + texts[place][1:]
    return texts


@pytest.fixture(scope="module")
def acceptor(tokenizer):
    """Compiles a grammar to a function which tells whether it accepts tokens that are made piece by piece, as in
    training."""
    tokens = from_tokenizer(tokenizer)

    def compile_grammar(grammar):
        compiled = LLMatcher(tokens, grammar, log_level=0)
        assert not compiled.is_error(), compiled.get_error()

        def accepts(pieces):
            ids = [i for text in pieces if text for i in tokenizer.encode(text, add_special_tokens=False)]
            return compiled.deep_copy().consume_tokens([*ids, tokenizer.eos_token_id])

        return accepts

    return compile_grammar


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("form", Form)
def test_what_is_accepted_keeps_the_contract_and_what_is_written_is_accepted(name, form, acceptor, tokenizer):
    contract, rng = CONTRACTS[name], random.Random(name)
    accepts = acceptor(response_grammar(contract, form, tokenizer.eos_token_id, {}))
    outcomes = set()
    for _ in range(150):
        pieces = pieces_of(rng, contract, form)
        text = "".join(pieces)
        parsed = contract.parse(text, form)
        is_accepted = accepts(pieces)
        outcomes.add(is_accepted)
        assert parsed.keeps_contract or not is_accepted, text
        if parsed.keeps_contract and not is_accepted:  # a value that is padded, or whose JSON has escapes by number
            assert is_written_otherwise(contract, parsed.values, form, text), text
    assert outcomes == {True, False}


def is_written_otherwise(contract, values, form, text):
    try:
        written = "".join(piece.text for piece in contract.render(values, form))
    except ContractError:
        return True
    return written != text or any(value != value.strip() for value in values.values())


def test_every_training_example_is_accepted(acceptor, tokenizer, contract, memos):
    for container in ("tags", "json", "plain"):
        of_container = contract.model_copy(update={"container": container})
        for form in Form:
            accepts = acceptor(response_grammar(of_container, form, tokenizer.eos_token_id, {}))
            for memo in memos[:5]:
                pieces = of_container.render(memo.values, form)
                texts = [piece.text for piece in pieces]
                assert accepts(texts)
                assert not accepts(texts[:-1]), "the response has not ended"
                if pieces[-1].is_mark:
                    assert not accepts([*texts, "x"])


def test_a_response_begins_where_the_prompt_ends(acceptor, tokenizer):
    contract, end = CONTRACTS["thinking"], tokenizer.eos_token_id

    def grammar(prompt):
        return response_grammar(contract, Form.TAGGED, end, {}, partial(continuing, prompt))

    whole, inside = ["<think>\n", "so", "\n</think>\n\n", "yes"], ["so", "\n</think>\n\n", "yes"]
    again = ["so <think>", "\n</think>\n\n", "yes"]
    for prompt, accepted in (("a question", whole), ("a question<think>\n", inside)):
        assert list(filter(acceptor(grammar(prompt)), (whole, inside, again))) == [accepted]


def test_tags_that_are_special_tokens_are_these_tokens_and_never_text(acceptor, tokenizer):
    """Two special tokens that the tokenizer has stand for the tags of a segment."""
    tags = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
    texts = dict(zip(tokenizer.convert_tokens_to_ids(tags), ("<Answer>", "</Answer>"), strict=True))
    contract = ResponseContract(segments=(Segment(name="answer", key=True, check=LABELS),))
    accepts = acceptor(response_grammar(contract, Form.TAGGED, tokenizer.eos_token_id, texts))
    assert accepts([tags[0], "approve", tags[1]])
    assert not accepts(["<Answer>", "approve", "</Answer>"])


def test_formats_without_a_grammar_are_refused():
    optional = [Segment(name=f"s{i}", key=True, required=False, delimiter=f"{i}: ") for i in range(6)]
    nested = Segment(name="answer", key=True, check=Check(json_schema={"type": "object"}))
    for contract, problem in (
        (ResponseContract(segments=tuple(optional)), "6 optional segments, of which a grammar can have at most 5"),
        (ResponseContract(container="json", segments=(nested,)), "JSON within a string, as the check json_schema of"),
        (ResponseContract(container="plain", segments=(Segment(name="a", key=True),)), "the contract has no mark"),
    ):
        with pytest.raises(ConfigError, match=problem):
            response_grammar(contract, Form.TAGGED, 0, {})


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_schema_accepts_what_the_grammar_accepts(name, acceptor, tokenizer):
    contract, rng = CONTRACTS[name], random.Random(name)
    schema = response_schema(contract, Form.TAGGED)
    assert (schema is not None) == (contract.container == "json")
    assert response_schema(contract, Form.UNTAGGED) is None
    if schema is None:
        return
    jsonschema.Draft202012Validator.check_schema(schema)
    accepts, seen = acceptor(response_grammar(contract, Form.TAGGED, tokenizer.eos_token_id, {})), 0
    for _ in range(60):
        pieces = pieces_of(rng, contract, Form.TAGGED)
        if accepts(pieces):
            jsonschema.validate(json.loads("".join(pieces)), schema)
            seen += 1
    assert seen


def test_a_schema_of_a_user_keeps_its_references_and_is_never_a_string():
    tree = {"$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"}
    open_to_all = {"type": ["string", "integer"]}
    contract = ResponseContract(
        container="json",
        segments=(
            Segment(name="tree", key=True, value="json", check=Check(json_schema=tree)),
            Segment(name="number", value="json", check=Check(json_schema=open_to_all)),
            Segment(name="grade", value="json", check=Check(one_of=("1", "2"))),
            Segment(name="call", value="tool_call"),
        ),
    )
    schema = response_schema(contract, Form.TAGGED)
    right = {"tree": [[], [[]]], "number": 1, "grade": 2, "call": {"name": "f", "arguments": {}}}
    jsonschema.validate(right, schema)
    for wrong in ({"tree": [1]}, {"tree": "s"}, {"number": "s"}, {"grade": 3}, {"call": {"name": "f"}}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**right, **wrong}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({name: right[name] for name in ("tree", "number", "grade")}, schema)


def test_one_of_several_optional_keys_must_be_there():
    schema = response_schema(CONTRACTS["one of two keys"], Form.TAGGED)
    for values in ({"a": "x"}, {"b": "x"}, {"a": "x", "b": "y"}):
        jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)
