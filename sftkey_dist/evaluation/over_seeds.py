"""One measure over the seeds of a study: its mean, how sure that is, and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sftkey_dist.evaluation.statistics import Interval

_SAME = 1e-12


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        interval: 95 %, Student's t over seeds; nan with a single seed.
        number: seeds.
    """

    value: float
    interval: Interval
    number: int

    def side_of(self, bound: float) -> int:
        """1 or -1 when the interval lies above or below a bound, else 0: too noisy to tell."""
        low, high = self.interval
        return 1 if low > bound else -1 if high < bound else 0


@dataclass(frozen=True)
class PairedMean:
    """First minus second, seed by seed.

    Attributes:
        mean: of the differences.
        p_value: paired t-test, two-sided; nan with a single seed.
        seeds_higher: seeds in which the first is higher.
        seeds_lower: seeds in which it is lower.
    """

    mean: Mean
    p_value: float
    seeds_higher: int
    seeds_lower: int

    @property
    def sign(self) -> int:
        """1 or -1 when the interval leaves out 0, else 0: too noisy to tell."""
        return self.mean.side_of(0)


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Mean and interval of one value a seed; equal values have an interval of no width."""
    middle, number = float(np.mean(values)), len(values)
    if number < 2:
        return Mean(middle, (math.nan, math.nan), number)
    half = float(stats.t.ppf(0.975, number - 1) * np.std(values, ddof=1) / math.sqrt(number))
    return Mean(middle, (middle - half, middle + half), number)


def paired_over_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> PairedMean | None:
    """Compare by the seeds that both have; None when there is none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    mean = mean_over_seeds(differences)
    if len(seeds) < 2:
        p_value = math.nan
    elif np.ptp(differences) < _SAME:  # the test divides by their spread
        p_value = 0.0 if abs(differences[0]) > _SAME else 1.0
    else:
        p_value = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return PairedMean(mean, p_value, sum(d > 0 for d in differences), sum(d < 0 for d in differences))
