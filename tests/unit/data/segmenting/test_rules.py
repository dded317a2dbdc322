"""Rules: what they cut on real responses, and that no character is ever lost or made up."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkey_dist.config.rules import RegexRule
from sftkey_dist.data.segmenting.answer import same_answer, why_no_answer
from sftkey_dist.data.segmenting.cut import Candidate, Cut, NotCut
from sftkey_dist.data.segmenting.decision import cut_response
from sftkey_dist.data.segmenting.rules import resolve_rules
from sftkey_dist.data.segmenting.thinking import holds_thinking_tag

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
        ("We add. The answer is 7.", "answer_is", "We add.", "7"),
        ("We add.\nFinal answer: blue whale", "answer_is", "We add.", "blue whale"),
        ("The answer is not clear at first. We add. The correct answer is (B).", "answer_is", None, "(B)"),
        ("We add.\n(C)", "option_letter", "We add.", "C"),
        ("We add.\nAns : D", "answer_is", "We add.", "D"),
        ("We add.\nAnswer D", "option_letter", "We add.", "D"),
        ("We add. Hence B is the correct answer.", "option_letter", "We add.", "B"),
        ("We add.\nA: 42", "answer_is", "We add.", "42"),
        ("We add.\nB", "option_letter", "We add.", "B"),
    ],
)
def test_each_rule_cuts_what_it_is_for(response, rule, reasoning, answer):
    found = cut(response)
    assert isinstance(found, Cut)
    assert (found.rule, found.values["answer"], found.doubt) == (rule, answer, None)
    if reasoning is not None:
        assert found.values["reasoning"] == reasoning


@pytest.mark.parametrize(
    ("response", "rules", "reason"),
    [
        ("one line without anything", (), "no_rule"),
        ("#### 72", (), "no_reasoning"),
        ("The answer is (B).", (), "no_reasoning"),
        ("reasoning\n#### ", (), "no_rule"),
        ("\\boxed{never closed", ("boxed",), "no_rule"),
        ("before <think>hm</think> 42", ("think",), "unclear_thinking"),
        ("<think>Let me see. 2+3=5. The answer is 5", (), "unclosed_thinking"),
        ("We get\n\\begin{align*}\nx &= 5\n\\end{align*}", ("boxed", "answer_is"), "no_rule"),
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


def test_strong_evidence_that_disagrees_is_a_doubt_with_all_candidates():
    found = cut("It is \\boxed{3}.\nThe answer is 4.")
    assert (found.rule, found.values["answer"]) == ("boxed", "3")
    assert found.doubt == NotCut("rules_disagree", "rule answer_is finds the answer '4'")
    assert found.candidates == (Candidate("boxed", "3"), Candidate("answer_is", "4"))
    assert cut("It is \\boxed{3}.\nThe answer is $3$.").doubt is None
    assert cut("x\n#### 5\n").doubt is None
    assert cut("The answer is 4.\n\\boxed{3}").doubt.reason == "rules_disagree", (
        "evidence needs no reasoning of its own"
    )


def test_all_boxes_are_candidates():
    found = cut("The roots are \\boxed{3} and \\boxed{4}.")
    assert found.doubt.reason == "several_answers"
    assert set(found.candidates) == {Candidate("boxed", "3"), Candidate("boxed", "4")}


def test_a_guess_is_shown_to_a_person_and_taken_where_the_rule_is_named():
    found = cut("We add.\napprove")
    assert (found.rule, found.values["answer"], found.doubt.reason) == ("last_line", "approve", "only_a_guess")
    found = cut("We add.\napprove", "last_line")
    assert (found.values, found.doubt) == ({"reasoning": "We add.", "answer": "approve"}, None)


def test_a_rule_of_your_own_names_any_segments():
    rule = RegexRule(name="memo", regex=r"(?P<analysis>.+)\nGrade: (?P<risk_grade>[A-E])\nDecision: (?P<decision>\w+)")
    found = cut("All fine.\nGrade: B\nDecision: approve\n", rule)
    assert found.values == {"analysis": "All fine.", "risk_grade": "B", "decision": "approve"}
    assert found.rule == "memo"


@pytest.mark.parametrize(
    ("regex", "response", "answer", "doubt"),
    [
        (r"(?P<reasoning>.+)\nVerdict: (?P<answer>.+)", "All fine.\nVerdict: **approve**", "approve", ""),
        (r"(?P<reasoning>.+)\nVerdict: (?P<answer>.+)", "All fine.\nVerdict: two lines\nof it", "two lines\nof it", ""),
        (r"(?P<reasoning>.+)\nVerdict: (?P<answer>.+)", "All fine.\nVerdict: not guilty", "not guilty", ""),
        (r"(?P<reasoning>.+)\nVerdict: (?P<answer>.+)", "All.\nVerdict: a **bold** word", "a **bold** word", "markup"),
        (r"(?P<reasoning>.+)\nVerdict: (?P<answer>.+)", "All.\nVerdict: Step 2", "Step 2", "heading"),
        (r"<think>(?P<reasoning>.+)</think>(?P<answer>.+)", "<think>hm</think>It is so.", "It is so", ""),
        (r"(?P<reasoning>.+)\nVerdict: (?P<answer>.+)", "<think>hm</think>\nVerdict: yes", "yes", "unclear_thinking"),
    ],
)
def test_a_rule_of_your_own_is_taken_at_its_word_but_trains_no_markup(regex, response, answer, doubt):
    found = cut(response, RegexRule(regex=regex))
    assert found.values["answer"] == answer
    assert (found.doubt.reason if found.doubt else "") == doubt


@pytest.mark.parametrize(
    ("rule", "response", "answer", "doubt"),
    [
        (
            "think",
            "<think>hm</think>\nThe river rose over the wall.\nThey need help.",
            "The river rose over the wall.\nThey need help",
            "",
        ),
        ("think", "<think>hm</think>\n# They\n\nneed help.", "# They\n\nneed help", "markup"),
        ("boxed", "So \\boxed{42}.\n#### 41", "42", ""),
        ("boxed", "It is \\boxed{42}.\nThe answer is 41.", "42", ""),
        ("boxed", "So \\boxed{x - y - 3}.\n\nThe minus sign comes from the axis.", "x - y - 3", ""),
        ("boxed", "So \\boxed{3}.\n\nThen \\boxed{4}.", "4", "rules_disagree"),
        ("answer_is", "We get \\boxed{3} first.\nThe answer is 4.", "4", ""),
        ("answer_is", "We add.\nThe answer is not 5.", "not 5", "negated"),
        ("last_line", "We add.\n\\end{align*}", None, "no_rule"),
        ("last_line", "We add.\n<think>", None, "unclosed_thinking"),
        ("hash_marks", "We add.\n#### Step 2", None, "no_rule"),
    ],
)
def test_a_rule_that_is_named_decides_alone_and_trains_no_markup(rule, response, answer, doubt):
    found = cut(response, rule)
    if answer is None:
        assert (type(found), found.reason) == (NotCut, doubt)
    else:
        assert found.values["answer"] == answer
        assert (found.doubt.reason if found.doubt else "") == doubt


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("6 * 7 = 42 jars.\n#### 42\nThe answer is: 42", "42"),
        (
            "First.\n\n#### Adding\n\n12 + 30 = 42\n\n#### Conclusion\n\nThe cost is therefore 42 dollars, as it is.",
            "no_rule",
        ),
        ("#### Step 1\nAdd 12 and 30.\n#### Step 2\nSo the total is \\boxed{42}.", "42"),
        ("12 + 30 = 42.\n\n**Answer:** 42", "42"),
        ("12 + 30 = 42.\n\n**Final Answer: 42**", "42"),
        ("12 + 30 = 42.\n\nThe answer is **42**.", "42"),
        ("12 + 30 = 42.\n#### 42\n\nHope that helps!", "42"),
        ("<think>\nIt is 42.\n</think>\n\nAdd.\n\n12 + 30 = 42\n\nIt costs 42.\n\n**Final Answer**\n\\boxed{42}", "42"),
        ("The roots are \\boxed{3} and \\boxed{4}.", "several_answers"),
        ("12 + 30 = 42.\n#### 42", "42"),
        ("6*7.\nThe answer is 42. This is because 6 times 7 is 42.", "text_after_answer"),
        ("Let us see. The final answer is $5$. I hope it is correct.", "$5$"),
        ("We get\n\\begin{align*}\nx &= 5\n\\end{align*}", "no_rule"),
        ("Let us see.\n\n#### Step 2\nThe sum is 5, so the answer is $\\boxed{5}$.", "5"),
        ("We tried 5.\nThe answer is not 5.", "negated"),
        ("2+3=5, so we get 5.\n\nI hope this helps!", "no_rule"),
        ("<think>Let me see. 2+3=5. The answer is 5", "unclosed_thinking"),
    ],
)
def test_common_shapes_give_their_answer_or_the_reason_for_a_review(response, expected):
    found = cut(response)
    problem = found if isinstance(found, NotCut) else found.doubt
    assert (problem.reason if problem else found.values["answer"]) == expected


def test_several_named_rules_must_agree_as_the_default_ones_do():
    solution = "<think>hm</think>\nWe add both fees.\n12 + 30 = 42\n\nThe answer is 42."
    found = cut(solution, "think", "boxed", "answer_is")
    assert (found.rule, found.values["answer"], found.doubt) == ("answer_is", "42", None)
    assert found.removed == {"thinking": "<think>hm</think>"}


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


@settings(deadline=None)
@given(st.lists(PIECES | st.text(max_size=8), max_size=14).map("".join))
def test_segments_are_parts_of_the_response_and_what_lies_outside_is_a_separator_or_named(response):
    for rules in ([rule] for rule in DEFAULT):
        found = cut_response(response, rules)
        if isinstance(found, NotCut):
            continue
        for text in found.values.values():
            assert text in response
            assert text.strip() == text != ""
        named = sum(len(text) for text in found.removed.values())
        assert named + sum(map(len, found.values.values())) + 120 > len(response), (rules, found)
        if found.doubt is None:
            assert why_no_answer(found.values["answer"], is_mathematics=True) == ""
            assert not any(map(holds_thinking_tag, found.values.values()))


HOSTILE = [
    "\\boxed{1} ",
    "\\boxed{1}\n",
    "#### 1\n",
    "so, ",
    "**",
    "<answer>",
    "Question: x\n",
    "I hope.\n",
    "`a",
    "$",
    "不",
    "A: 1\n",
]


@pytest.mark.parametrize(
    "piece", ["#### ", "\\boxed{", "The answer is ", "<think>", "\n", "{", "(A)", "answer ", *HOSTILE]
)
def test_hostile_length_takes_little_time(piece):
    started = time.process_time()
    cut_response(piece * 30_000, DEFAULT)
    cut_response("x" * 100_000, DEFAULT)
    assert time.process_time() - started < 20


def test_white_space_after_the_last_sentence_takes_no_time():
    started = time.process_time()
    cut_response("foo\nanswer is" + " " * 190 + "\n" * 190 + "x\ny", DEFAULT)
    assert time.process_time() - started < 1


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
