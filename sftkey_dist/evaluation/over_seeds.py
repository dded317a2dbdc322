"""A measure over the seeds of a study: its mean with a confidence interval, and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from sftkey_dist.evaluation.statistics import Interval, wilson_interval

_SAME = 1e-12


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        interval: 95 % interval over seeds. It is nan with a single seed and if all seeds have the same value, neither
            of which says anything about other seeds.
        number: number of seeds.
    """

    value: float
    interval: Interval
    number: int

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.interval[0])

    def side_of(self, bound: float) -> int:
        """1 if the interval lies above the bound, -1 if it lies below, and 0 if it contains the bound."""
        low, high = self.interval
        return 1 if low > bound else -1 if high < bound else 0


@dataclass(frozen=True)
class PairedMean:
    """The difference first minus second, paired by seed.

    Attributes:
        mean: mean of the differences.
        p_value: p-value of the paired t-test, two-sided; None with a single seed and if all differences are equal.
        seeds_higher: number of seeds for which the first is higher.
        seeds_lower: number of seeds for which the first is lower.
        standard_error: of the mean; nan where there is no p-value.
    """

    mean: Mean
    p_value: float | None
    seeds_higher: int
    seeds_lower: int
    standard_error: float

    @property
    def sign(self) -> int:
        """Sign of the difference, 1 or -1, or 0 if the interval contains 0."""
        return self.mean.side_of(0)


def mean_over_seeds(values: Sequence[float], *, is_share: bool = True, questions: int = 0) -> Mean:
    """Mean and interval of a measure with one value per seed.

    Args:
        values: one value per seed.
        is_share: whether the interval must lie in [0, 1]. It is then Wilson's interval, with Student's quantile and
            the effective number of trials that follows from the spread over seeds (Dean and Pagano 2015, as in
            `statistics`). Other values, and shares outside [0, 1], get Student's interval.
        questions: number of questions behind each share. If all seeds have the same share, the interval is computed
            over the questions.
    """
    middle, number = float(np.mean(values)), len(values)
    is_share = is_share and min(values) >= 0 and max(values) <= 1
    if number < 2:
        return Mean(middle, (math.nan, math.nan), number)
    if np.ptp(values) < _SAME:
        over_questions = is_share and questions
        return Mean(
            middle, wilson_interval(middle * questions, questions) if over_questions else (math.nan, math.nan), number
        )
    quantile, error = _student(values)
    if not is_share:
        return Mean(middle, (middle - quantile * error, middle + quantile * error), number)
    trials = middle * (1 - middle) / error**2
    return Mean(middle, wilson_interval(middle * trials, trials, quantile), number)


def paired_over_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> PairedMean | None:
    """Compare two measures over the seeds that both have; None if they have none in common.

    The interval is Student's, like the test, clipped to [-1, 1], where differences of shares lie.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    middle, number, p_value = float(np.mean(differences)), len(seeds), None
    interval, error = (math.nan, math.nan), math.nan
    if number > 1 and np.ptp(differences) >= _SAME:  # the test divides by their spread
        quantile, error = _student(differences)
        low, high = middle - quantile * error, middle + quantile * error
        interval = (max(-1.0, low), min(1.0, high))
        p_value = float(2 * stdtr(number - 1, -abs(middle) / error))
    mean = Mean(middle, interval, number)
    return PairedMean(mean, p_value, sum(d > 0 for d in differences), sum(d < 0 for d in differences), error)


def _student(values: Sequence[float]) -> tuple[float, float]:
    """Student's quantile for a two-sided interval, and the standard error of the mean."""
    number = len(values)
    return float(stdtrit(number - 1, 0.975)), float(np.std(values, ddof=1) / math.sqrt(number))
