"""What a model writes costs a moment, whatever it is, and ends nothing."""

import json
import time

import pytest

from sftkey_dist.config.answer_check import JsonCheck, LabelCheck, RegexCheck
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.contract.segment import Check
from sftkey_dist.data.segmenting.decision import cut_response
from sftkey_dist.data.segmenting.rules import resolve_rules
from sftkey_dist.evaluation.answers import Case, judged_by_check, make_check
from sftkey_dist.evaluation.answers.options import options_of
from sftkey_dist.evaluation.judge.reading import read_verdict
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.files import to_json

QUESTION = "Which?\nA. cat\nB. dog\nC. 5"
CHECKS = {
    "exact": ("exact", "B"),
    "numeric": ("numeric", "5"),
    "math": ("math", "5"),
    "option": ("option", "B"),
    "json": ("json", "[1]"),
    "json fields": (JsonCheck(json_fields=("a.b",)), '{"a": {"b": 1}}'),
    "label": (LabelCheck(labels=("yes", "no", "not sure")), "yes"),
    "regex": (RegexCheck(regex=r"(\w+\s*)+!$"), "a!"),
}
PIECES = [
    "*",
    "**",
    "_",
    "`",
    "```\n",
    "$",
    '"',
    "\n",
    "\r",
    "\xa0",
    "\u2028",
    " \n",
    "5",
    "1,",
    "\\(",
    "correct ",
    "A\n",
]
MAX_SECONDS = 4.0
"""Of processor time, on a slow machine that others use: without a limit these inputs took 25 seconds to hours.
`tests.fuzz` measures how long the slowest input takes."""


def seconds_of(call, *arguments):
    started = time.process_time()
    call(*arguments)
    return time.process_time() - started


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("piece", PIECES)
def test_a_check_of_a_repeated_piece_takes_a_moment(check, piece):
    settings, reference = CHECKS[check]
    made = make_check(settings)
    for text in (piece * 4000, f"**a{piece * 4000}A"):
        assert seconds_of(made, Case(text, reference, QUESTION)) < MAX_SECONDS


@pytest.mark.parametrize("piece", ["\n", "\n\n", " \n", "\r\n", "A. x\n", "A.\n", "*", "("])
def test_the_options_of_a_hostile_question_are_found_in_a_moment(piece):
    assert seconds_of(options_of, f"{QUESTION}\n{piece * 8000}") < MAX_SECONDS
    assert options_of(f"{piece * 40}\n{QUESTION}")["B"] == "dog"


@pytest.mark.parametrize("text", ["```" + "\n" * 3000, "```json" + "\n" * 3000 + "x", "```\n" + "` " * 3000])
def test_a_fence_that_never_ends_takes_a_moment(text):
    check = make_check("json")
    assert seconds_of(check, Case(text, "[1]", "")) < MAX_SECONDS
    assert check(Case("```json\n[1]\n```", "[1]", "")).verdict is Verdict.CORRECT


DEEP = {
    "400 levels": "[" * 400 + "]" * 400,
    "100,000 levels": "[" * 100_000 + "]" * 100_000,
    "100,000 keys": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "too large a number": "1e999",
    "a huge integer": "9" * 100_000,
    "a surrogate": '"\\ud800"',
    "a megabyte": "[" + "1," * 500_000 + "1]",
}


@pytest.mark.parametrize("name", DEEP)
def test_json_of_any_depth_and_size_is_wrong_at_most(name):
    text = DEEP[name]
    fenced = [text, f"```json\n{text}\n```", f'{{"grade": {text}, "analysis": {text}}}', f"<Answer>{text}</Answer>"]
    contract = ResponseContract.model_validate(
        {
            "container": "json",
            "segments": [
                {"name": "analysis"},
                {"name": "grade", "key": True, "value": "json", "check": {"json_schema": {"type": "integer"}}},
            ],
        }
    )
    for each in fenced:
        for check, (settings, reference) in CHECKS.items():
            found = judged_by_check(make_check(settings), Case(each, reference, QUESTION))
            assert found.verdict in (Verdict.INCORRECT, Verdict.CORRECT), check
        for form in Form:
            parsed = contract.parse(each, form)
            to_json([dict(parsed.values), parsed.detail]).encode()
        assert read_verdict(each) is None
        cut_response(each, resolve_rules(("default",)))


def problem(schema, text):
    return Check(json_schema=schema).problem(text)


def test_unique_items_of_an_array_are_found_in_linear_time():
    items = ",".join(f'{{"a": [{number}]}}' for number in range(8000))
    unique = {"type": "array", "uniqueItems": True}
    assert seconds_of(problem, unique, f"[{items}]") < MAX_SECONDS
    assert problem(unique, f"[{items}]") is None
    assert problem(unique, f'[{items}, {{"a": [7]}}]') == "an item of the array comes twice"
    assert problem(unique, "[1, true, 0, false, null, [1]]") is None
    assert problem(unique, "[1, 1.0]") is not None
    assert problem(unique, '[{"a": 1, "b": 2}, {"b": 2, "a": 1}]') is not None


def test_a_schema_that_doubles_its_work_with_every_level_is_stopped():
    twice = {"anyOf": [{"items": {"$ref": "#"}, "minItems": 1}, {"items": {"$ref": "#"}, "minItems": 1}]}
    assert "more than 10,000 steps" in problem(twice, "[" * 60 + "]" * 60)
    assert seconds_of(problem, twice, "[" * 60 + "]" * 60) < MAX_SECONDS


def test_patterns_of_a_schema_on_names_and_texts_have_a_time_limit():
    slow = r"^(\w|_|[a-z])+(\d|\w)*(\w+\s?)+$"
    for schema in ({"patternProperties": {slow: {}}}, {"additionalProperties": False, "patternProperties": {slow: {}}}):
        started = time.monotonic()
        assert problem(schema, json.dumps({"a" * 60 + "!": 1})) is not None or time.monotonic() - started < 2
        assert time.monotonic() - started < 5
    assert (
        problem({"additionalProperties": {"type": "string"}, "properties": {"a": {}}}, '{"a": 1, "b": 1}') is not None
    )
    assert problem({"additionalProperties": False, "patternProperties": {"^x": {}}}, '{"x1": 1}') is None
    assert (
        problem({"additionalProperties": False, "patternProperties": {"^x": {"type": "null"}}}, '{"x1": 1}') is not None
    )


@pytest.mark.parametrize("text", ["1e999", "-1e999", '{"a": [1e400]}', "NaN", "Infinity"])
def test_a_number_that_json_cannot_hold_is_no_json(text):
    assert problem({}, text).startswith("not JSON: ")


def test_a_text_with_half_a_surrogate_pair_is_written_as_an_escape():
    written = to_json({"reason": "a\ud800b"})
    assert written == '{"reason": "a\\ud800b"}'
    assert json.loads(written.encode()) == {"reason": "a\ud800b"}
    ruling = read_verdict('{"verdict": "correct", "reason": "\\ud800"}')
    to_json({"reason": ruling.reason}).encode()
