"""Prompt templates: what is a column, what is a brace, and what is a mistake."""

import pytest

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.columns import RowError, filled
from sftkey_dist.data.adapters.layouts import make_adapter
from sftkey_dist.errors import ConfigError

ROW = {
    "question": "2+2?",
    "options": ["3", "4"],
    "meta": {"why": "sum"},
    "a b": "spaced",
    "Price (USD)": 7,
    "1": "one",
    "braces": "{question} }}",
    "none": None,
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("question", "2+2?"),
        ("{question}\n{options}", "2+2?\n3\n4"),
        ("{meta.why}: {a b}", "sum: spaced"),
        ('Reply as {"grade": "A"}.\n{question}', 'Reply as {"grade": "A"}.\n2+2?'),
        ('Reply as {{"grade": "A"}}.\n{question}', 'Reply as {"grade": "A"}.\n2+2?'),
        ('{"a": {"b": {"c": 1}}} {question}', '{"a": {"b": {"c": 1}}} 2+2?'),
        ('{{"a": {{"b": 1}}}} {question}', '{"a": {"b": 1}} 2+2?'),
        ('{"a": {"b": {question}}}', '{"a": {"b": 2+2?}}'),
        ('{{"q": {question}}}', '{"q": 2+2?}'),
        ("{{{question}}}", "{2+2?}"),
        ("{{question}} {question}", "{question} 2+2?"),
        (r"\frac{2}{3} \sqrt{\frac{2}{x^{2}}} {question}", r"\frac{2}{3} \sqrt{\frac{2}{x^{2}}} 2+2?"),
        (r"\boxed{{answer}} {question}", r"\boxed{answer} 2+2?"),
        ("x_{n+1} {} { } {\n  return;\n} {question}", "x_{n+1} {} { } {\n  return;\n} 2+2?"),
        ("{ {question} }", "{ 2+2? }"),
        ("} {question} {", "} 2+2? {"),
        ("{Price (USD)} {1}", "7 one"),
        ("{braces}", "{question} }}"),
    ],
)
def test_columns_are_replaced_and_other_braces_stay(template, expected):
    assert filled(ROW, template) == expected


@pytest.mark.parametrize("name", ["qustion", "questions[0]", "question:10", "none", "meta.how", "insert text"])
def test_a_name_that_the_row_lacks_is_an_error_that_says_how_braces_are_written(name):
    with pytest.raises(RowError) as error:
        filled(ROW, f"Solve {{{name}}}. {{question}}")
    assert error.value.reason == "missing_field"
    assert f"{{{{{name}}}}}" in str(error.value)
    assert ("did you mean 'question'?" in str(error.value)) == name.startswith("q")


def test_a_template_without_any_field_is_no_prompt():
    with pytest.raises(RowError, match="names no field"):
        filled(ROW, 'Reply as {"grade": "A"}.')


def test_a_template_that_can_be_read_in_two_ways_is_a_configuration_error():
    source = SourceConfig(adapter="records", path="x.jsonl", prompt="Solve {{question}")
    with pytest.raises(ConfigError, match=r"prompt: '\{\{' before 'question\}' has no '\}\}'; double both braces"):
        make_adapter(source, ResponseContract())


def test_a_template_whose_columns_are_all_empty_is_no_prompt():
    row = {"case": " ", "history": "", "lines": ["", ""]}
    assert filled(row | {"history": "late"}, "Case: {case}, {history}") == "Case:  , late"
    for template in ("Case: {case}", "Case: {case}, {history} {lines}", "case"):
        with pytest.raises(RowError) as error:
            filled(row, template)
        assert error.value.reason == "empty_field"
        assert "'case'" in str(error.value)
