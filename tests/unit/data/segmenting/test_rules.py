"""Rules: what they cut on real responses, and that no character is ever lost or made up."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkey_dist.config.data import RegexRule
from sftkey_dist.data.segmenting.rules import Cut, NotCut, cut_response, resolve_rules, same_answer

DEFAULT = resolve_rules(("default",))
SHARED = Path(__file__).parents[5] / "shared" / "data"


def cut(response, *rules):
    return cut_response(response, resolve_rules(rules) if rules else DEFAULT)


@pytest.mark.parametrize(
    ("response", "rule", "reasoning", "answer"),
    [
        ("48/2 = 24\n#### 72", "hash_marks", "48/2 = 24", "72"),
        ("<think>\nhm\n</think>\n\n42", "think", "hm", "42"),
        ("hm</think>42", "think", "hm", "42"),
        ("so $x=\\boxed{\\frac{1}{2}}$ m.", "boxed", "so $x=\\boxed{\\frac{1}{2}}$ m.", "\\frac{1}{2}"),
        ("\\boxed{a \\} b}", "boxed", "\\boxed{a \\} b}", "a \\} b"),
        ("\\boxed{1} then \\boxed{2}", "boxed", "\\boxed{1} then \\boxed{2}", "2"),
        ("We add. The answer is 7.", "answer_is", "We add.", "7"),
        ("We add.\nFinal answer: blue whale", "answer_is", "We add.", "blue whale"),
        ("The answer is not clear at first. We add. The correct answer is (B).", "answer_is", None, "(B)"),
        ("We add.\n(C)", "option_letter", "We add.", "C"),
        ("We add.\nAns : D", "option_letter", "We add.", "D"),
        ("We add.\nB", "option_letter", "We add.", "B"),
        ("We add.\napprove", "last_line", "We add.", "approve"),
    ],
)
def test_each_rule_cuts_what_it_is_for(response, rule, reasoning, answer):
    found = cut(response)
    assert isinstance(found, Cut)
    assert (found.rule, found.values["answer"], found.doubt) == (rule, answer, "")
    if reasoning is not None:
        assert found.values["reasoning"] == reasoning


@pytest.mark.parametrize(
    ("response", "rules", "reason"),
    [
        ("one line without anything", (), "no_rule"),
        ("#### 72", (), "no_rule"),
        ("reasoning\n#### ", (), "no_rule"),
        ("\\boxed{never closed", ("boxed",), "no_rule"),
        ("before <think>hm</think> 42", ("think",), "no_rule"),
        ("a\n" + "word " * 30, ("last_line",), "no_rule"),
        (
            "Reason: a b c IMPORTANT NOTE THAT IS LONG Verdict: x",
            ({"regex": ".*?: (?P<reasoning>a).*(?P<answer>x)"},),
            "not_covered",
        ),
    ],
)
def test_what_cannot_be_cut_says_why(response, rules, reason):
    resolved = tuple(RegexRule(**rule) if isinstance(rule, dict) else rule for rule in rules)
    found = cut(response, *resolved)
    assert isinstance(found, NotCut)
    assert found.reason == reason
    assert found.detail


def test_two_rules_that_disagree_leave_a_doubt_and_a_guess_does_not():
    found = cut("It is \\boxed{3}.\nThe answer is 4.")
    assert (found.rule, found.values["answer"]) == ("boxed", "3")
    assert "answer_is finds the answer '4'" in found.doubt
    assert cut("It is \\boxed{3}.\nThe answer is $3$.").doubt == ""
    assert cut("x\n#### 5\n").doubt == ""


def test_a_rule_of_your_own_names_any_segments():
    rule = RegexRule(name="memo", regex=r"(?P<analysis>.+)\nGrade: (?P<risk_grade>[A-E])\nDecision: (?P<decision>\w+)")
    found = cut("All fine.\nGrade: B\nDecision: approve\n", rule)
    assert found.values == {"analysis": "All fine.", "risk_grade": "B", "decision": "approve"}
    assert found.rule == "memo"


def test_rules_are_tried_in_the_declared_order():
    response = "It is \\boxed{3}\n#### 3"
    assert cut(response).rule == "hash_marks"
    assert cut(response, "boxed", "hash_marks").rule == "boxed"


@pytest.mark.parametrize(
    ("one", "other", "same"), [("$1,000$", "1000.", True), ("(B)", "b", True), ("1/2", "1/3", False)]
)
def test_answers_are_compared_bare(one, other, same):
    assert same_answer(one, other) is same


MARKS = ["#### ", "<think>", "</think>", "\\boxed{", "}", "{", "The answer is ", "Answer: ", "\n", " ", "B", "(C)"]
PIECES = st.sampled_from([*MARKS, "42", ".", "\\", "ü", "🙂", "\x00", "שלום", "words here"])


@given(st.lists(PIECES | st.text(max_size=8), max_size=14).map("".join))
def test_segments_are_parts_of_the_response_and_nothing_but_separators_is_lost(response):
    for rule in DEFAULT:
        found = cut_response(response, [rule])
        if isinstance(found, NotCut):
            continue
        for text in found.values.values():
            assert text in response
            assert text.strip() == text != ""
        lost = response
        for text in found.values.values():
            lost = lost.replace(text, "", 1)
        assert sum(len(text) for text in found.values.values()) + 80 > len(response), (rule.name, lost)


@pytest.mark.parametrize("piece", ["#### ", "\\boxed{", "The answer is ", "<think>", "\n", "{", "(A)", "answer "])
def test_hostile_length_is_no_problem(piece):
    cut_response(piece * 30_000, DEFAULT)
    cut_response("x" * 100_000, DEFAULT)


def test_white_space_after_the_last_sentence_takes_no_time():
    started = time.perf_counter()
    cut_response("foo\nanswer is" + " " * 190 + "\n" * 190 + "x\ny", DEFAULT)
    assert time.perf_counter() - started < 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not beside the project")
@pytest.mark.parametrize(
    ("path", "column", "reference", "coverage", "right"),
    [
        ("gsm8k/train.jsonl", "answer", lambda row: row["answer"].rpartition("####")[2], 0.99, 1.0),
        ("gsm8k/test.jsonl", "answer", lambda row: row["answer"].rpartition("####")[2], 0.99, 1.0),
        ("minerva_math/test.jsonl", "solution", lambda row: None, 0.95, None),
        ("aqua/test.jsonl", "rationale", lambda row: row["correct"], 0.6, 0.97),
    ],
)
def test_rules_alone_cut_the_data_sets(path, column, reference, coverage, right):
    rows = [json.loads(line) for line in (SHARED / path).read_text().splitlines()]
    found = [(row, cut_response(row[column], DEFAULT)) for row in rows]
    sure = [(row, item) for row, item in found if isinstance(item, Cut) and not item.doubt]
    assert len(sure) / len(rows) >= coverage, Counter(item.rule for _, item in sure)
    if right is not None:
        strong = [(row, item) for row, item in sure if item.rule in ("hash_marks", "option_letter")]
        agreed = [same_answer(item.values["answer"], reference(row)) for row, item in strong]
        assert sum(agreed) / len(agreed) >= right
