"""Calls of tools are compared by name and arguments."""

import pytest

from sftkey_dist.evaluation.answers import Case, make_check
from sftkey_dist.evaluation.verdict import Verdict

REFERENCE = '{"name": "price_of", "arguments": {"thing": "bike", "year": 2020}}'
TWO = '[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ('{"arguments": {"year": 2020.0, "thing": "bike"}, "name": "price_of"}', "correct", ""),
        ('{"name": "price_of", "arguments": "{\\"thing\\": \\"bike\\", \\"year\\": 2020}"}', "correct", ""),
        (
            '<tool_call>\n{"name": "price_of", "arguments": {"thing": "bike", "year": 2020}}\n</tool_call>',
            "correct",
            "",
        ),
        ('{"type": "function", "function": ' + REFERENCE + "}", "correct", ""),
        (
            '{"name": "price_of", "arguments": {"thing": "car", "year": 2020}}',
            "incorrect",
            "'thing' of price_of differs",
        ),
        ('{"name": "price_of", "arguments": {"thing": "bike"}}', "incorrect", "'year' of price_of differs"),
        ('{"name": "cost_of", "arguments": {"thing": "bike", "year": 2020}}', "incorrect", "no call of price_of"),
        (f"[{REFERENCE}, {REFERENCE}]", "incorrect", "unexpected call of price_of"),
        ("I would look up the price.", "incorrect", "no call of a tool"),
        ('{"name": "price_of", "arguments": [1]}', "incorrect", "no call of a tool"),
        ("[" * 5000, "incorrect", "no call of a tool"),
        ("", "incorrect", "no answer"),
    ],
)
def test_one_call(answer, verdict, reason):
    judgement = make_check("tool_call")(Case(answer, REFERENCE))
    assert judgement.verdict == verdict
    assert reason in judgement.reason


def test_the_order_of_several_calls_does_not_matter():
    reverse = '<tool_call>{"name": "g", "arguments": {}}</tool_call><tool_call>{"name": "f", "arguments": {"a": 1}}'
    assert make_check("tool_call")(Case(reverse, TWO)).verdict is Verdict.CORRECT
    assert make_check("tool_call")(Case('{"name": "f", "arguments": {"a": 1}}', TWO)).reason == "no call of g"


def test_a_reference_that_is_no_call_is_found_before_training():
    assert "no call of a tool" in make_check("tool_call").problem_with("yes", "")
