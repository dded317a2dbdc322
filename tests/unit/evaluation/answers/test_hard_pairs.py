"""The checks on hard pairs of answer and reference, which were labelled by reading."""

from collections import Counter

import pytest

from tests.benchmarks.answers.pairs import Checks, judge_pairs, read_pairs, tallies

MAX_WRONG_AND_CERTAIN = 0
CHECKS = ("numeric", "math", "option", "labels", "exact", "json", "regex")
MIN_RIGHT = dict.fromkeys(CHECKS, 0.99)
MIN_PAIRS, MIN_KINDS = 1500, 45
PAIRS = read_pairs()


@pytest.fixture(scope="module")
def checks():
    return Checks()


@pytest.mark.parametrize("check", MIN_RIGHT)
def test_a_check_is_right_on_hard_pairs_and_never_wrong_and_certain(check, checks):
    pairs = [pair for pair in PAIRS if pair.check_name == check]
    judged = judge_pairs(pairs, checks)
    tally = tallies(pairs, judged)[check]
    mistakes = [
        f"{pair.kind}: {pair.reference!r} | {pair.answer!r} -> {said}"
        for pair, said in zip(pairs, judged, strict=True)
        if said.word != pair.expected
    ]
    assert tally.wrong_and_certain <= MAX_WRONG_AND_CERTAIN, mistakes
    assert tally.right_share >= MIN_RIGHT[check], mistakes


def test_the_pairs_are_many_distinct_and_balanced():
    keys = Counter((str(pair.check), pair.reference, pair.answer, pair.question) for pair in PAIRS)
    assert len(PAIRS) >= MIN_PAIRS
    assert len({(pair.check_name, pair.kind) for pair in PAIRS}) >= MIN_KINDS
    assert [key for key, number in keys.items() if number > 1] == []
    for check in MIN_RIGHT:
        labels = Counter(pair.expected for pair in PAIRS if pair.check_name == check)
        assert set(labels) == {"correct", "incorrect"}
        assert min(labels.values()) >= 0.3 * labels.total()
