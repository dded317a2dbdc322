"""Paired tests of strategies in what their answers follow."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sftkey_dist.evaluation.crossed import holm_of_tested
from sftkey_dist.evaluation.statistics import Interval, difference_interval, mcnemar_exact, share_of_clusters
from sftkey_dist.evaluation.swapped.summary import SWAP_MEASURES
from sftkey_dist.run_dir.artifacts.swapped import SwappedReasoning

_LEVEL = 0.05
_TESTED = ("right", "follows", "carries")


@dataclass(frozen=True)
class SwapTest:
    """A share of one strategy minus that of another one, over the questions that were judged for both.

    Attributes:
        measure: name of the share.
        first: the strategy from whose share the other's is subtracted.
        second: the other strategy.
        n: number of questions.
        only_first: number of questions that only the first one's share counts.
        only_second: number of questions that only the second one's share counts.
        difference: first minus second.
        difference_interval: 95 % interval, paired by question.
        p_value: of McNemar's exact test, two-sided.
        adjusted_p_value: the same with Holm's correction for all tests of the comparison.
    """

    measure: str
    first: str
    second: str
    n: int
    only_first: int
    only_second: int
    difference: float
    difference_interval: Interval
    p_value: float
    adjusted_p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether the strategies differ at the 5 % level, all tests taken together."""
        return self.adjusted_p_value < _LEVEL


def compare_swaps(results: Mapping[str, SwappedReasoning]) -> list[SwapTest]:
    """Compare every pair of strategies on the questions that they share, by measure."""
    tests = [
        test
        for measure in _TESTED
        for first, second in combinations(results, 2)
        if (test := _compared(measure, first, second, results)) is not None
    ]
    adjusted = holm_of_tested({i: test.p_value for i, test in enumerate(tests)})
    return [replace(test, adjusted_p_value=adjusted[i]) for i, test in enumerate(tests)]


def _compared(measure: str, first: str, second: str, results: Mapping[str, SwappedReasoning]) -> SwapTest | None:
    mine, others = (_counted(results[name], measure) for name in (first, second))
    shared = [key for key in mine if key in others]
    if not shared:
        return None
    one, other = (np.array([of[key] for key in shared], dtype=float) for of in (mine, others))
    trials = np.ones(len(shared))
    estimates = share_of_clusters(one, trials), share_of_clusters(other, trials)
    only_first, only_second = int((one > other).sum()), int((one < other).sum())
    p_value = mcnemar_exact(only_first, only_second)
    return SwapTest(
        measure=measure,
        first=first,
        second=second,
        n=len(shared),
        only_first=only_first,
        only_second=only_second,
        difference=estimates[0].value - estimates[1].value,
        difference_interval=difference_interval(*estimates),
        p_value=p_value,
        adjusted_p_value=p_value,
    )


def _counted(found: SwappedReasoning, measure: str) -> dict[tuple[str, str, str], bool]:
    """Whether a measure counts a question, by test set, question and donor, without those that were not judged."""
    outcomes = {(record.data_set, record.id, record.donor): SWAP_MEASURES[measure](record) for record in found.records}
    return {key: outcome for key, outcome in outcomes.items() if outcome is not None}
