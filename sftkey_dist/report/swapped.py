"""What the answers of strategies follow: the reasoning before them, or the prompt."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.evaluation.statistics import Interval
from sftkey_dist.evaluation.swapped.paired import SwapTest
from sftkey_dist.evaluation.swapped.summary import SWAP_MEASURES, SwapShare, SwapShares
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.numbers import UNKNOWN, counted, p_value, with_interval

SHARE_NAMES = tuple(SWAP_MEASURES)
READING = (
    "After the reasoning of another question, a model that makes its answer from the reasoning follows it, and a model "
    "that makes its answer from the prompt keeps the answer to the question in the prompt"
)
"""How to read the shares."""
_COLUMNS = (
    "right: right answers after the question's own reference reasoning; follows, keeps, neither: after the reference "
    "reasoning of another question, answers that are the other question's, the asked question's, and neither; carries: "
    "after the reasoning that the model itself had generated for the other question, answers that are those it had "
    "given there; n: number of answers after the reasoning of another question (a share of other answers says its own "
    "number); donors: number of these other questions; intervals are of 95 % (Wilson)"
)
_TESTS = (
    "p: McNemar's exact test with Holm's correction for the tests of all pairs; brackets are 95 % intervals, paired"
)


@dataclass(frozen=True)
class SwapTable:
    """A table of texts with notes, of which each is a sentence without its full stop."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def swap_tables(
    comparison: Comparison, shown: Callable[[float, Interval], str] = with_interval, *, all_pairs: bool = True
) -> list[SwapTable]:
    """The shares, and the tests of pairs of strategies; none if nothing was measured.

    Args:
        comparison: the comparison.
        shown: how a share and its interval are written.
        all_pairs: whether to list all tests, or only those of a strategy with its baseline or with one that shares its
            first stage.
    """
    if not comparison.swapped:
        return []
    shares = SwapTable(
        "what answers follow after the reasoning of another question",
        ("strategy", "n", "donors", *SHARE_NAMES),
        [_shares(label, found, shown) for label, found in comparison.swapped.items()],
        [_COLUMNS, READING, *_left_out(comparison.swapped)],
    )
    listed = [test for test in comparison.swap_tests if all_pairs or _is_with_baseline_or_start(test, comparison)]
    tests = SwapTable(
        "differences in what answers follow",
        ("measure", "first - second", "n", "difference", "only first / only second", "p (Holm)"),
        list(map(_test, listed)),
        [_TESTS, *([] if all_pairs else ["The page has the tests of all pairs"])],
    )
    return [shares, tests] if tests.rows else [shares]


def _is_with_baseline_or_start(test: SwapTest, comparison: Comparison) -> bool:
    """Whether a test is of a strategy and its baseline, or of two strategies with the same first stage."""
    pair = (test.first, test.second)
    first_stages = {
        row.stage_dirs()[0].path for label, row in zip(comparison.labels, comparison.rows, strict=True) if label in pair
    }
    return len(first_stages) == 1 or any(comparison.baseline_of(label) in pair for label in pair)


def _shares(label: str, shares: SwapShares, shown: Callable[[float, Interval], str]) -> list[str]:
    def cell(share: SwapShare) -> str:
        of_others = f" of {share.n:,}" if share.n not in (0, shares.follows.n) else ""
        return shown(share.value, share.interval) + of_others

    return [label, f"{shares.follows.n:,}", f"{shares.num_donors:,}", *map(cell, shares.by_name.values())]


def _test(test: SwapTest) -> list[str]:
    """The line of a test; ``*`` marks significant differences."""
    low, high = test.difference_interval
    return [
        test.measure,
        f"{test.first} - {test.second}",
        f"{test.n:,}",
        f"{test.difference:+.3f} [{low:+.2f}, {high:+.2f}]",
        f"{test.only_first:,} / {test.only_second:,}",
        _adjusted_p_value(test),
    ]


def _adjusted_p_value(test: SwapTest) -> str:
    if not (test.only_first or test.only_second):
        return UNKNOWN
    return p_value(test.adjusted_p_value) + (" *" if test.is_significant else "")


def _left_out(found: Mapping[str, SwapShares]) -> Iterator[str]:
    for label, shares in found.items():
        if shares.left_out:
            yield f"{label}: questions that were passed over: {counted(shares.left_out)}"
        if shares.without_generated:
            yield f"{label}: questions that are not counted in carries: {counted(shares.without_generated)}"
        if shares.unjudged:
            yield f"{label}: answers that could not be judged, by the reasoning before them: {counted(shares.unjudged)}"
