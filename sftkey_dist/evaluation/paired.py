"""Paired comparison of strategies on the same questions, and the best strategy as a function of alpha."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from sftkey_dist.evaluation.score import Question, Records, measures_of, outcome_sums
from sftkey_dist.evaluation.statistics import Interval, difference_interval, mcnemar_exact
from sftkey_dist.run_dir.artifacts.evaluation import composite

_Sums = tuple[list[Question], np.ndarray, np.ndarray]
"""What `outcome_sums` returns."""


@dataclass(frozen=True)
class PairedTest:
    """One strategy compared with another.

    Attributes:
        first: the strategy from whose measures the other's are subtracted.
        second: the other strategy.
        n: number of questions that were judged for both.
        only_first_correct: number of questions that only the first answered correctly; with several samples per
            question, that it answered correctly more often.
        only_second_correct: the same of the second.
        accuracy_p_value: p-value of McNemar's exact test, two-sided, which is the sign test of several samples.
        accuracy_difference: first minus second.
        accuracy_difference_interval: 95 % interval, paired by question; see `statistics`.
        score_difference: first minus second.
        score_difference_interval: 95 % interval, paired by question; see `statistics`.
    """

    first: str
    second: str
    n: int
    only_first_correct: int
    only_second_correct: int
    accuracy_p_value: float
    accuracy_difference: float
    accuracy_difference_interval: Interval
    score_difference: float
    score_difference_interval: Interval

    @property
    def accuracy_differs(self) -> bool:
        """Whether the accuracies differ significantly at the 5 % level."""
        return self.accuracy_p_value < 0.05

    @property
    def is_degenerate(self) -> bool:
        """Whether both answered the same questions correctly, so that there is nothing to test."""
        return not (self.only_first_correct or self.only_second_correct)


@dataclass(frozen=True)
class Lead:
    """How far a strategy is ahead of another one on the same questions; intervals are of 95 %, see `PairedTest`."""

    label: str
    over: str
    accuracy: float
    accuracy_interval: Interval
    score: float
    score_interval: Interval

    @classmethod
    def of(cls, test: PairedTest, label: str) -> "Lead":
        """The lead of one of the two strategies of a test."""
        sign = 1 if label == test.first else -1
        return cls(
            label,
            test.second if label == test.first else test.first,
            sign * test.accuracy_difference,
            _signed(test.accuracy_difference_interval, sign),
            sign * test.score_difference,
            _signed(test.score_difference_interval, sign),
        )

    @property
    def is_behind(self) -> bool:
        """Whether the interval of the lead in score contains negative numbers only.

        The label may still have the highest score, because of outputs that are unjudged or of other questions.
        """
        return self.score_interval[1] < 0

    @property
    def is_beyond_interval(self) -> bool:
        """Whether the interval of the lead in score contains positive numbers only."""
        return self.score_interval[0] > 0


def _signed(interval: Interval, sign: int) -> Interval:
    low, high = sorted(sign * bound for bound in interval)
    return low, high


@dataclass(frozen=True)
class AlphaRange:
    """The strategies that share the highest score for alpha from ``start`` to ``end``."""

    strategies: tuple[str, ...]
    start: float
    end: float

    @property
    def in_words(self) -> str:
        """Their names."""
        return " and ".join(self.strategies)


def compare_pair(first: str, second: str, records: Mapping[str, Records], alpha: float) -> PairedTest | None:
    """Compare two strategies on the questions that they share; None if they share none."""
    return _compared(first, second, {name: outcome_sums(records[name]) for name in (first, second)}, alpha)


def _compared(first: str, second: str, of_each: Mapping[str, _Sums], alpha: float) -> PairedTest | None:
    (keys, sums, counts), (other_keys, other_sums, other_counts) = of_each[first], of_each[second]
    places = {key: i for i, key in enumerate(other_keys)}
    shared = [
        (i, places[key])
        for i, key in enumerate(keys)
        if key in places and counts[i, 0] and other_counts[places[key], 0]
    ]
    if not shared:
        return None
    mine, others = [i for i, _ in shared], [j for _, j in shared]
    sums, counts, other_sums, other_counts = sums[mine], counts[mine], other_sums[others], other_counts[others]
    more = sums[:, 0] * other_counts[:, 0] - other_sums[:, 0] * counts[:, 0]  # the sign of the difference of shares
    only_first, only_second = int((more > 0).sum()), int((more < 0).sum())
    measures, other_measures = measures_of(sums, counts, alpha), measures_of(other_sums, other_counts, alpha)
    return PairedTest(
        first=first,
        second=second,
        n=len(shared),
        only_first_correct=only_first,
        only_second_correct=only_second,
        accuracy_p_value=mcnemar_exact(only_first, only_second),
        accuracy_difference=measures.accuracy.value - other_measures.accuracy.value,
        accuracy_difference_interval=difference_interval(measures.accuracy, other_measures.accuracy),
        score_difference=measures.score.value - other_measures.score.value,
        score_difference_interval=difference_interval(measures.score, other_measures.score),
    )


def compare_all(records: Mapping[str, Records], alpha: float) -> list[PairedTest]:
    """Compare every pair of strategies that share questions."""
    of_each = {name: outcome_sums(of_one) for name, of_one in records.items()}
    tests = (_compared(first, second, of_each, alpha) for first, second in combinations(records, 2))
    return [test for test in tests if test is not None]


def winners_by_alpha(measures: Mapping[str, tuple[float, float]]) -> list[AlphaRange]:
    """The strategies with the highest score for each alpha, as ranges of alpha.

    A score is a line over alpha in [0, 1], so the ranges are the segments of the upper envelope of these lines.
    Strategies without a judged answer are left out.

    Args:
        measures: (accuracy, format) of each strategy.
    """
    measures = {name: values for name, values in measures.items() if not math.isnan(sum(values))}
    if not measures:
        return []
    crossings = {0.0, 1.0}
    for (accuracy, form), (other_accuracy, other_form) in combinations(measures.values(), 2):
        slope, other_slope = accuracy - form, other_accuracy - other_form
        if slope != other_slope:
            crossing = (other_form - form) / (slope - other_slope)
            if 0 < crossing < 1:
                crossings.add(crossing)
    ranges: list[AlphaRange] = []
    for start, end in pairwise(sorted(crossings)):
        middle = (start + end) / 2
        scores = {name: composite(*values, middle) for name, values in measures.items()}
        highest = max(scores.values())
        winners = tuple(name for name, score in scores.items() if score == highest)
        if ranges and ranges[-1].strategies == winners:
            start = ranges.pop().start
        ranges.append(AlphaRange(winners, start, end))
    return ranges
