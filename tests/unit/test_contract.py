import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sftkey_dist.contract import ContractError, Form, ResponseContract, Segment, Violation

CONTRACT = ResponseContract()
THREE = ResponseContract(
    segments=(
        Segment(name="evidence", tag="Evidence"),
        Segment(name="reasoning", tag="Why"),
        Segment(name="decision", tag="Decision", key=True),
    ),
    delimiter="\n---\n",
)
TAGGED_VIOLATIONS = [
    ("<Thinking>a</Thinking>", Violation.MISSING),
    ("plain words", Violation.MISSING),
    ("<Thinking>a</Thinking><Answer>b</Answer><Answer>c</Answer>", Violation.DUPLICATED),
    ("<Answer>b</Answer><Thinking>a</Thinking>", Violation.OUT_OF_ORDER),
    ("<Thinking>a<Answer>b</Answer></Thinking>", Violation.NESTED),
    ("<Thinking>a</Thinking><Answer> </Answer>", Violation.EMPTY),
    ("Sure! <Thinking>a</Thinking><Answer>b</Answer>", Violation.TEXT_OUTSIDE),
    ("<Thinking>a</Thinking><Answer>b</Answer> Hope it helps", Violation.TEXT_OUTSIDE),
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
@pytest.mark.parametrize("contract", [CONTRACT, THREE])
@given(data=st.data())
def test_what_renders_parses_back_exactly(contract, form, data):
    hostile = st.text(max_size=30) | st.sampled_from(
        ["<Answer>", "</Thinking>", "a</Why>", "\n#### ", "\n---\n", "#### ", "\x00", "🙂", "שלום", " ", "\n"]
    )
    text = st.lists(hostile, max_size=4).map("".join)
    values = {segment.name: data.draw(text) for segment in contract.segments}
    try:
        pieces = contract.render(values, form)
    except ContractError:
        return
    assert contract.parse("".join(p.text for p in pieces), form).values == values


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
