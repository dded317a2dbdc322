import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sftkey_dist.contract import (
    Check,
    ContractError,
    Form,
    NumberRange,
    ResponseContract,
    Segment,
    Violation,
    segments_of,
)

CONTRACT = ResponseContract()
THREE = ResponseContract(
    segments=(
        Segment(name="evidence", tag="Evidence"),
        Segment(name="reasoning", tag="Why"),
        Segment(name="decision", tag="Decision", key=True),
    ),
    delimiter="\n---\n",
)
DECISION = (
    Segment(name="summary"),
    Segment(name="citations", required=False, value="json", delimiter="\nCitations: "),
    Segment(name="amount", value="json", check=Check(number=NumberRange(min=0)), delimiter="\nAmount: "),
    Segment(name="decision", key=True, check=Check(one_of=("approve", "reject")), delimiter="\nDecision: "),
)
JSON = ResponseContract(segments=DECISION, container="json")
OPTIONAL = ResponseContract(segments=DECISION)
PLAIN = ResponseContract(container="plain", delimiter="\nSo: ")
OPTIONAL_FIRST = ResponseContract(
    segments=(Segment(name="reasoning", required=False), Segment(name="answer", key=True))
)
CONTRACTS = [CONTRACT, THREE, JSON, OPTIONAL, PLAIN, OPTIONAL_FIRST]
IDS = ["paper", "three", "json", "optional", "plain", "optional-first"]
TAGGED_VIOLATIONS = [
    ("<Thinking>a</Thinking>", Violation.MISSING),
    ("plain words", Violation.MISSING),
    ("<Thinking>a</Thinking><Answer>b</Answer><Answer>c</Answer>", Violation.DUPLICATED),
    ("<Answer>b</Answer><Thinking>a</Thinking>", Violation.OUT_OF_ORDER),
    ("<Thinking>a<Answer>b</Answer></Thinking>", Violation.NESTED),
    ("<Thinking>a</Thinking><Answer> </Answer>", Violation.EMPTY),
    ("Sure! <Thinking>a</Thinking><Answer>b</Answer>", Violation.TEXT_OUTSIDE),
    ("<Thinking>a</Thinking><Answer>b</Answer> Hope it helps", Violation.TRAILING_TEXT),
    ("<Thinking>a</Thinking> so <Answer>b</Answer>", Violation.TEXT_OUTSIDE),
    ("<thinking>a</thinking><answer>b</answer>", Violation.MISSING),
]


def test_renders_the_papers_contract_piece_by_piece():
    pieces = CONTRACT.render({"reasoning": "2+2", "answer": "4"}, Form.TAGGED)
    assert [(p.segment, p.text) for p in pieces] == [
        ("reasoning.open", "<Thinking>"),
        ("reasoning", "2+2"),
        ("reasoning.close", "</Thinking>"),
        ("answer.open", "<Answer>"),
        ("answer", "4"),
        ("answer.close", "</Answer>"),
    ]


def test_untagged_form_joins_segments_with_the_delimiter():
    pieces = CONTRACT.render({"reasoning": "2+2", "answer": "4"}, Form.UNTAGGED)
    assert "".join(p.text for p in pieces) == "2+2\n#### 4"


@pytest.mark.parametrize(("output", "violation"), TAGGED_VIOLATIONS)
def test_parse_says_which_rule_is_broken(output, violation):
    parsed = CONTRACT.parse(output, Form.TAGGED)
    assert parsed.violation is violation
    assert not parsed.keeps_contract
    assert parsed.detail


def test_white_space_between_and_around_segments_is_allowed():
    parsed = CONTRACT.parse("\n<Thinking> a </Thinking>\n\n<Answer>b</Answer>\n", Form.TAGGED)
    assert parsed.values == {"reasoning": " a ", "answer": "b"}


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("contract", CONTRACTS, ids=IDS)
@given(data=st.data())
def test_what_renders_parses_back_exactly(contract, form, data):
    hostile = st.text(max_size=30) | st.sampled_from(
        ["<Answer>", "</Thinking>", "a</Why>", "\n#### ", "\n---\n", "#### ", "\x00", "🙂", "שלום", " ", "\n"]
    )
    text = st.lists(hostile, max_size=4).map("".join)
    text |= st.sampled_from(["12.5", "approve", '["a", 1]', '{"decision": "x"}', '"', "\\", "\nDecision: "])
    values = {segment.name: data.draw(text) for segment in contract.segments}
    try:
        pieces = contract.render(values, form)
    except ContractError:
        return
    present = {name: value for name, value in values.items() if value.strip()}
    assert contract.parse("".join(p.text for p in pieces), form).values == present


@pytest.mark.parametrize("contract", CONTRACTS, ids=IDS)
@pytest.mark.parametrize("form", list(Form))
@given(st.text(alphabet='{}[]":,\\<>/#- aD\n1', max_size=60))
def test_parse_of_anything_gives_values_or_a_violation(contract, form, text):
    parsed = contract.parse(text, form)
    assert bool(parsed.values) is parsed.keeps_contract
    if parsed.keeps_contract:
        contract.render(parsed.values, form)
    for segment in contract.segments:
        assert isinstance(contract.search(text, form, segment.name), str)


@given(
    st.lists(st.sampled_from(["<Thinking>", "</Thinking>", "<Answer>", "</Answer>", "x", " ", "\n#### "]), max_size=9)
)
def test_parse_never_crashes_and_never_accepts_what_it_would_not_write(parts):
    for form in Form:
        parsed = CONTRACT.parse("".join(parts), form)
        if parsed.keeps_contract:
            written = "".join(p.text for p in CONTRACT.render(parsed.values, form))
            assert "".join(written.split()) == "".join("".join(parts).split())


def test_tags_inside_a_segment_are_refused():
    with pytest.raises(ContractError, match="read back differently"):
        CONTRACT.render({"reasoning": "see <Answer>1</Answer>", "answer": "4"}, Form.TAGGED)
    CONTRACT.render({"reasoning": "see <Answer>1</Answer>", "answer": "4"}, Form.UNTAGGED)


def test_empty_segment_is_refused_by_name():
    with pytest.raises(ContractError) as error:
        CONTRACT.render({"reasoning": "a", "answer": " "}, Form.TAGGED)
    assert error.value.reason == "empty_answer"


def test_segment_ids_are_the_same_for_every_form():
    assert CONTRACT.segment_names == (
        "prompt",
        "end_of_turn",
        "reasoning.open",
        "reasoning",
        "reasoning.close",
        "answer.open",
        "answer",
        "answer.close",
    )


@pytest.mark.parametrize(
    "segments",
    [
        [{"name": "a", "tag": "A"}],
        [{"name": "a", "tag": "A", "key": True}, {"name": "a", "tag": "B"}],
        [{"name": "prompt", "tag": "A", "key": True}],
        [{"name": "a", "tag": "no spaces", "key": True}],
    ],
)
def test_impossible_contracts_are_refused(segments):
    with pytest.raises(ValidationError):
        ResponseContract.model_validate({"segments": segments})


VALID = '{"summary": "s", "citations": ["a"], "amount": 12.50, "decision": "approve"}'


def test_a_json_object_keeps_values_as_written_and_gives_key_tokens_of_their_own():
    values = {"summary": 'a "quoted"\nline', "citations": '["a",  1]', "amount": "12.50", "decision": "approve"}
    pieces = JSON.render(values, Form.TAGGED)
    assert "".join(p.text for p in pieces) == (
        '{"summary": "a \\"quoted\\"\\nline", "citations": ["a",  1], "amount": 12.50, "decision": "approve"}'
    )
    assert [p.text for p in pieces if p.segment == "decision"] == ["approve"]
    assert JSON.parse("".join(p.text for p in pieces), Form.TAGGED).values == values


def test_an_optional_segment_may_be_absent_in_every_form():
    values = {"summary": "s", "amount": "1", "decision": "reject"}
    for contract in (JSON, OPTIONAL):
        for form in Form:
            text = "".join(p.text for p in contract.render(values | {"citations": " "}, form))
            assert contract.parse(text, form).values == values
    assert "".join(p.text for p in OPTIONAL_FIRST.render({"answer": "4"}, Form.UNTAGGED)) == "\n#### 4"


@pytest.mark.parametrize(
    ("output", "violation"),
    [
        ("no object", Violation.NOT_JSON),
        ("Sure: " + VALID, Violation.TEXT_OUTSIDE),
        (VALID + " done", Violation.TRAILING_TEXT),
        (VALID[:-1], Violation.NOT_JSON),
        (VALID.replace("12.50", "NaN"), Violation.NOT_JSON),
        (VALID.replace('"s"', '"\\ud800"'), Violation.NOT_JSON),
        ('{"summary": "s", "amount": 1, "extra": 2, "decision": "approve"}', Violation.UNKNOWN_FIELD),
        ('{"summary": "s", "summary": "s", "amount": 1, "decision": "approve"}', Violation.DUPLICATED),
        ('{"summary": "s", "decision": "approve"}', Violation.MISSING),
        ('{"amount": 1, "summary": "s", "decision": "approve"}', Violation.OUT_OF_ORDER),
        ('{"summary": "s", "amount": "1", "decision": "approve"}', Violation.INVALID_VALUE),
        ('{"summary": "s", "amount": -1, "decision": "approve"}', Violation.INVALID_VALUE),
        ('{"summary": "s", "amount": 1, "decision": "maybe"}', Violation.INVALID_VALUE),
        ('{"summary": " ", "amount": 1, "decision": "approve"}', Violation.EMPTY),
        ("{}", Violation.MISSING),
        ("{" * 100_000, Violation.NOT_JSON),
        ('{"summary": ' + "[" * 100_000, Violation.NOT_JSON),
        ('{"summary": "s", "amount": ' + "1" * 10_000 + ', "decision": "approve"}', None),
    ],
)
def test_parse_says_why_a_json_object_breaks_the_contract(output, violation):
    parsed = JSON.parse(output, Form.TAGGED)
    assert parsed.violation is violation
    assert bool(parsed.detail) is (violation is not None)


@pytest.mark.parametrize(
    ("output", "violation"),
    [
        ("s\nAmount: 1\nDecision: approve", None),
        ("s\nDecision: approve", Violation.MISSING),
        ("s\nDecision: approve\nAmount: 1", Violation.MISSING),
        ("s\nAmount: 1\nDecision: approve\nAmount: 1", Violation.OUT_OF_ORDER),
        ("s\nAmount: 1\nAmount: 1\nDecision: approve", Violation.DUPLICATED),
        ("s\nAmount: one\nDecision: approve", Violation.INVALID_VALUE),
        ("\nAmount: 1\nDecision: approve", Violation.EMPTY),
    ],
)
def test_parse_says_why_the_plain_convention_is_broken(output, violation):
    assert OPTIONAL.parse(output, Form.UNTAGGED).violation is violation


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"regex": r"[A-Z]\d+"}, " A12 ", "A12 x"),
        ({"one_of": ["yes", "no"]}, "yes", "Yes"),
        ({"number": {}}, "-1.5e3", "1,5"),
        ({"number": {"min": 0, "max": 1}}, "0.5", "1.01"),
        ({"number": {}}, "3", "Infinity"),
        ({"json_schema": {"type": "array", "items": {"type": "string"}}}, '["a"]', "[1]"),
        ({"json_schema": {"type": "object"}}, "{}", "{"),
        ({"json_schema": {"type": "number", "multipleOf": 0.01}}, "12.5", "1e400"),
        ({"json_schema": {"type": "number", "multipleOf": 0.01}}, "12.5", f"1{'0' * 400}"),
        ({"json_schema": {"items": {"multipleOf": 0.5}}}, "[1.5]", "[1, -1e400]"),
        ({"json_schema": {"type": "number"}}, "1e300", "NaN"),
        ({"json_schema": {}}, "[1]", "[-Infinity]"),
    ],
)
def test_checks_tell_allowed_text_from_other_text(check, good, bad):
    segments = (Segment(name="answer", key=True, check=Check.model_validate(check)),)
    contract = ResponseContract(segments=segments)
    assert contract.parse(f"<Answer>{good}</Answer>", Form.TAGGED).keeps_contract
    assert contract.parse(f"<Answer>{bad}</Answer>", Form.TAGGED).violation is Violation.INVALID_VALUE
    with pytest.raises(ContractError, match="answer") as error:
        contract.render({"answer": bad}, Form.TAGGED)
    assert error.value.reason == "invalid_answer"


@pytest.mark.parametrize(
    "check",
    [
        {},
        {"regex": "["},
        {"one_of": []},
        {"regex": "a", "number": {}},
        {"json_schema": {"type": "nothing"}},
        {"json_schema": {"pattern": "("}},
        {"json_schema": {"patternProperties": {"[": {}}}},
    ],
)
def test_impossible_checks_are_refused(check):
    with pytest.raises(ValidationError):
        Check.model_validate(check)


@pytest.mark.parametrize(
    ("contract", "form", "output", "found"),
    [
        (JSON, Form.TAGGED, 'I say {"decision": "approve", "amount": 3', "approve"),
        (JSON, Form.TAGGED, '{"decision": "appro', "appro"),
        (CONTRACT, Form.TAGGED, "bla <Answer>4</Answer> bla <Answer>5", "5"),
        (CONTRACT, Form.TAGGED, "just 4", "just 4"),
        (CONTRACT, Form.UNTAGGED, "a #### 3\n#### 4", "4"),
        (CONTRACT, Form.TAGGED, "<Thinking>a</Thinking><Answer>5</Answer>\n<Answer>", "5"),
        (CONTRACT, Form.TAGGED, "<Thinking>a</Thinking><Answer>5</Answer><Answer> </Answer>", "5"),
        (CONTRACT, Form.TAGGED, "<Answer>5\n<Answer>", "5"),
        (CONTRACT, Form.TAGGED, "<Answer>5<Answer></Answer><Answer>6", "6"),
        (CONTRACT, Form.TAGGED, "a <Answer></Answer> b", ""),
        (CONTRACT, Form.UNTAGGED, "a\n#### 4\n#### ", "4"),
        (CONTRACT, Form.UNTAGGED, "a\n#### 4\n####", "4"),
        (CONTRACT, Form.UNTAGGED, "#### ", ""),
        (JSON, Form.TAGGED, '{"decision": "approve"} {"decision": ""}', "approve"),
        (JSON, Form.TAGGED, '{"decision": "approve"} {"decision": ', "approve"),
        (JSON, Form.TAGGED, '{"decision": ""}', ""),
    ],
)
def test_an_answer_is_searched_where_the_contract_is_broken(contract, form, output, found):
    assert contract.search(output, form, contract.key_segments[0].name) == found


def test_special_token_tags_name_every_tag_and_need_tags():
    contract = ResponseContract(special_token_tags=True)
    assert contract.special_tokens == ("<Thinking>", "</Thinking>", "<Answer>", "</Answer>")
    with pytest.raises(ValidationError, match="container: tags"):
        ResponseContract(special_token_tags=True, container="json")


def test_optional_segments_need_delimiters_of_their_own():
    segments = (Segment(name="a"), Segment(name="b", required=False), Segment(name="c", key=True))
    with pytest.raises(ValidationError, match="its own delimiter"):
        ResponseContract(segments=segments)


def test_linear_in_hostile_text():
    text = "<Answer>" * 20_000 + "</Thinking>" * 20_000
    assert CONTRACT.parse(text, Form.TAGGED).violation is Violation.MISSING
    assert not CONTRACT.parse("\n#### " * 50_000, Form.UNTAGGED).keeps_contract


def test_a_schema_that_refers_to_nothing_is_refused_when_the_contract_is_read():
    Check(json_schema={"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}})
    for reference in ("#/nope", "https://example.org/schema"):
        with pytest.raises(ValueError, match="cannot be resolved"):
            Check(json_schema={"properties": {"a": {"$ref": reference}}})


def test_more_segments_than_a_byte_can_number_are_refused():
    names = [f"s{i}" for i in range(85)]
    with pytest.raises(ValueError, match="at most 84 segments"):
        ResponseContract(segments=tuple(Segment(name=name, key=True) for name in names))


@pytest.mark.parametrize(
    "check", [{"regex": r"([A-Za-z]+\s*)+\."}, {"json_schema": {"type": "string", "pattern": r"^(a+)+$"}}]
)
def test_a_pattern_that_takes_for_ever_has_a_time_limit(check):
    text = "a" * 60 + "!"
    started = time.monotonic()
    assert Check.model_validate(check).problem(json.dumps(text) if "json_schema" in check else text) is not None
    assert time.monotonic() - started < 10


TOOLS = ResponseContract(
    container="plain",
    segments=(
        Segment(name="reasoning", delimiter="<think>\n"),
        Segment(
            name="tool_call",
            key=True,
            required=False,
            value="tool_call",
            delimiter="\n</think>\n\n<tool_call>\n",
            terminator="\n</tool_call>",
        ),
        Segment(name="answer", key=True, required=False, delimiter="\n</think>\n\n"),
    ),
)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("values", [{"tool_call": '{"name": "f"}'}, {"answer": "yes"}])
def test_a_terminator_ends_its_segment(form, values):
    response = "".join(piece.text for piece in TOOLS.render({"reasoning": "r", **values}, form))
    parsed = TOOLS.parse(response, form)
    assert parsed.values == {"reasoning": "r", **values}
    assert TOOLS.parse(response.removeprefix("<think>\n"), form).values == parsed.values  # the prompt has opened it


@pytest.mark.parametrize(
    ("text", "violation", "detail"),
    [
        ("<think>\nr\n</think>\n\n<tool_call>\n{}", "missing", "no '</tool_call>' after tool_call"),
        ("<think>\nr\n</think>\n\n<tool_call>\n{}\n</tool_call> and more", "trailing_text", "after '</tool_call>'"),
        ("<think>\nr", "missing", "none of tool_call, answer"),
    ],
)
def test_a_response_without_terminator_or_key_segment_breaks_the_contract(text, violation, detail):
    parsed = TOOLS.parse(text, Form.TAGGED)
    assert parsed.violation == violation
    assert detail in parsed.detail


def test_a_terminator_ends_what_is_found_in_a_broken_response():
    broken = "r\n</think>\n\n<tool_call>\n{}\n</tool_call> and so on\n</think>"
    assert TOOLS.search(broken, Form.TAGGED, "tool_call") == "{}"


def test_a_response_needs_a_key_segment():
    with pytest.raises(ContractError, match="none of tool_call, answer"):
        TOOLS.render({"reasoning": "r"}, Form.TAGGED)
    with pytest.raises(ValidationError, match="at most one segment"):
        ResponseContract(segments=[*TOOLS.segments, Segment(name="more", value="tool_call", delimiter="+")])


@pytest.mark.parametrize("label", ["n/a", '"a"', "NaN", "1e999", "1 2", "9" * 5000])
def test_labels_that_are_no_values_of_a_json_object_are_refused(label):
    grade = {"name": "grade", "key": True, "check": {"one_of": ["1", label]}}
    with pytest.raises(ValidationError, match=r"segment grade: one_of '.*' is no JSON value other than a string"):
        ResponseContract(container="json", segments=[{**grade, "value": "json"}])
    assert ResponseContract(container="json", segments=[grade]), "as a text"
    assert ResponseContract(container="tags", segments=[{**grade, "value": "json"}]), "not in an object"


def test_tags_that_the_prompt_opens_are_read():
    contract = ResponseContract(segments=(Segment(name="reasoning", tag="think"), Segment(name="answer", key=True)))
    assert contract.parse("r</think><Answer>a</Answer>", Form.TAGGED).values == {"reasoning": "r", "answer": "a"}


def test_tags_belong_to_their_segment_and_the_end_of_turn_to_the_last(contract):
    names = contract.segment_names
    found = {segment: {names[number] for number in ids} for segment, ids in segments_of(names).items()}
    assert found == {
        "reasoning": {"reasoning.open", "reasoning", "reasoning.close"},
        "answer": {"answer.open", "answer", "answer.close", "end_of_turn"},
    }


def test_every_segment_of_a_contract_of_ones_own_is_compared():
    segments = [
        {"name": name, "tag": name.capitalize(), "key": name == "verdict"} for name in ("plan", "work", "verdict")
    ]
    names = ResponseContract.model_validate({"segments": segments}).segment_names
    assert list(segments_of(names)) == ["plan", "work", "verdict"]
