"""Messy responses: the goals for the default rules, and the form of what they accept."""

import json
import re
from collections import Counter

import pytest

from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.segmenting.cut import Cut
from sftkey_dist.data.segmenting.decision import cut_response
from sftkey_dist.data.segmenting.rules import resolve_rules
from sftkey_dist.data.segmenting.thinking import holds_thinking_tag
from sftkey_dist.data.segmenting.verify import why_refused
from tests.benchmarks.segmenting import DEFAULT, MAX_REVIEWED_PERCENT, MAX_WRONG_PERCENT, MESSY, messy, tally

ROWS = [json.loads(line) for line in MESSY.read_text(encoding="utf-8").splitlines()]
CUTS = [(row, cut_response(row["response"], DEFAULT)) for row in ROWS]
ACCEPTED = [(row, cut) for row, cut in CUTS if isinstance(cut, Cut) and cut.doubt is None]


def test_hardly_a_cut_is_wrong_and_few_rows_are_left_to_a_person():
    result = tally(messy())
    assert result.wrong_percent <= MAX_WRONG_PERCENT, result.mistakes
    assert result.reviewed_percent <= MAX_REVIEWED_PERCENT, result.reasons


def test_the_rows_are_of_many_shapes_and_languages_and_a_tenth_has_no_answer():
    assert len(ROWS) >= 500
    assert len({row["shape"] for row in ROWS}) >= 60
    assert {"en", "de", "fr", "es", "zh"} <= {row["language"] for row in ROWS}
    assert len({row["response"] for row in ROWS}) == len(ROWS)
    assert 0.1 < sum(row["expected"] == "review" for row in ROWS) / len(ROWS) < 0.5


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "zh"])
def test_no_language_is_left_to_a_person(language):
    rows = [(row, cut) for row, cut in CUTS if row["language"] == language and row["expected"] != "review"]
    accepted = sum(isinstance(cut, Cut) and cut.doubt is None for _, cut in rows)
    assert accepted / len(rows) >= 0.9


def test_what_is_trained_holds_no_tag_and_no_sign_off_and_stands_in_the_response():
    for row, cut in ACCEPTED:
        for value in cut.values.values():
            assert value in row["response"]
            assert not holds_thinking_tag(value), row
            assert not re.search(r"hope (this|that|it)|let me know|<\||</?answer>", value, re.IGNORECASE), row
        is_quoted = cut.values["answer"] in cut.values["reasoning"][-60:]
        assert is_quoted or not re.search(r"[*#>]$", cut.values["reasoning"]), row


def test_what_is_removed_is_named():
    removed = Counter(name for _, cut in ACCEPTED for name in cut.removed)
    assert set(removed) == {"thinking", "sign_off", "after_answer"}
    for row, cut in ACCEPTED:
        rest = row["response"]
        for text in sorted((*cut.values.values(), *cut.removed.values()), key=len, reverse=True):
            rest = rest.replace(text, " ", 1)
        assert len(rest) < 90, (row, rest)


def test_an_accepted_cut_would_be_accepted_from_a_person_too():
    refused = [
        (row["response"], problem)
        for row, cut in ACCEPTED
        if (problem := why_refused(cut.values, row["response"], ResponseContract(), tuple(cut.removed.values())))
    ]
    assert len(refused) <= len(ACCEPTED) * 0.02, refused


def test_the_same_rules_one_by_one_accept_no_answer_that_all_together_would_refuse():
    """A rule that a person names alone still trains no markup, no heading and no thinking."""
    for name in ("hash_marks", "think", "boxed", "answer_is", "option_letter", "last_line"):
        (rule,) = resolve_rules((name,))
        for row in ROWS:
            cut = cut_response(row["response"], [rule])
            if isinstance(cut, Cut) and cut.doubt is None:
                answer = cut.values["answer"]
                assert not re.search(
                    r"\*\*|`|^#|</?think>|\\end\{(?!.?matrix)|\\boxed|^(Step \d|Conclusion)", answer
                ), row
