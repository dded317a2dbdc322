import math

import pytest

from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.evaluation.answers import Verdict, check_exact, check_numeric, find_answer
from sftkey_dist.evaluation.score import score_records, wilson_interval

CONTRACT = ResponseContract()
CORRECT, INCORRECT, UNJUDGED = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNJUDGED


@pytest.mark.parametrize(
    ("output", "form", "text", "source"),
    [
        ("<Thinking>t</Thinking><Answer> 42 </Answer>", Form.TAGGED, "42", "strict"),
        ("<Thinking>t<Answer>42</Answer> bye", Form.TAGGED, "42", "lenient"),
        ("<Answer>1</Answer><Answer>42", Form.TAGGED, "42", "lenient"),
        ("just 42", Form.TAGGED, "just 42", "lenient"),
        ("", Form.TAGGED, "", "lenient"),
        ("steps\n#### 42", Form.UNTAGGED, "42", "strict"),
        ("steps #### 41\n#### 42\n", Form.UNTAGGED, "42", "strict"),
        ("#### 42", Form.UNTAGGED, "42", "lenient"),
        ("no delimiter, 42", Form.UNTAGGED, "no delimiter, 42", "lenient"),
    ],
)
def test_answers_are_read_strictly_or_looked_for(output, form, text, source):
    found = find_answer(output, CONTRACT, form, "answer")
    assert (found.text, found.source) == (text, source)


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("72", "72", CORRECT),
        ("$1,234.50", "1234.5", CORRECT),
        ("The answer is 72.", "72", CORRECT),
        ("72 apples, not 73", "72", INCORRECT),
        ("-5", "5", INCORRECT),
        ("0.1", "0.10", CORRECT),
        ("1000000000000000000000001", "1000000000000000000000000", INCORRECT),
        ("seventy-two", "72", INCORRECT),
        ("", "72", INCORRECT),
        ("72", "none", UNJUDGED),
    ],
)
def test_numeric_check(answer, reference, verdict):
    assert check_numeric(answer, reference).verdict is verdict


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("Approve.", "approve", CORRECT),
        ("  re  view ", "re view", CORRECT),
        ("approve reject", "approve", INCORRECT),
        ("", "approve", INCORRECT),
        ("approve", " ", UNJUDGED),
    ],
)
def test_exact_check(answer, reference, verdict):
    assert check_exact(answer, reference).verdict is verdict


def record(verdict, keeps=True, truncated=False):
    return {
        "verdict": verdict,
        "keeps_contract": keeps,
        "violation": None if keeps else "missing",
        "truncated": truncated,
    }


def test_scores_are_the_shares_and_their_composite():
    records = [record("correct")] * 6 + [record("incorrect", keeps=False, truncated=True)] * 4
    scores = score_records(records, alpha=0.7)
    assert (scores.accuracy, scores.format, scores.n) == (0.6, 0.6, 10)
    assert scores.score == pytest.approx(0.7 * 0.6 + 0.3 * 0.6)
    assert scores.violations == {"missing": 4}
    assert scores.truncated == 4
    assert scores.score_interval[0] < scores.score < scores.score_interval[1]


def test_unjudged_examples_are_not_wrong_ones():
    scores = score_records([record("correct")] * 3 + [record("incorrect")] + [record("unjudged")] * 4, alpha=0.7)
    assert scores.accuracy == 0.75
    assert scores.unjudged == 4
    assert scores.accuracy_bounds == (3 / 8, 7 / 8)


def test_nothing_judged_has_no_accuracy_and_nothing_recorded_is_refused():
    assert math.isnan(score_records([record("unjudged")], 0.7).accuracy)
    with pytest.raises(ValueError, match="no records"):
        score_records([], 0.7)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_equals_published_values(successes, trials, low, high):
    """Values of Newcombe (1998), table I, method 3, and of the closed form at 5 of 10."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)
