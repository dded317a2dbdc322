"""Confidence intervals, paired tests and agreement.

All intervals are 95 % intervals. A share has Wilson's score interval (Newcombe 1998, Statistics in Medicine 17:857),
which stays in [0, 1] and has a width even if all observations are equal. Over clusters, the effective number of trials
replaces their number (Dean and Pagano 2015, Journal of Survey Statistics and Methodology 3:484). Intervals of sums and
differences are composed from the intervals of their parts (Zou and Donner 2008, Statistics in Medicine 27:1693).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

Interval = tuple[float, float]

_Z_95 = 1.959963984540054
_SMALLEST_SPREAD = 1e-12


def wilson_interval(successes: float, trials: float, quantile: float = _Z_95) -> Interval:
    """Wilson's score interval of a share; (0, 1) without trials.

    Args:
        successes: number of successes.
        trials: number of trials, or the effective number.
        quantile: quantile of the normal distribution, or of Student's if the spread is estimated from few values.
    """
    if trials <= 0:
        return 0.0, 1.0
    share, z2 = successes / trials, quantile**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = quantile * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


@dataclass(frozen=True)
class Estimate:
    """A share, or a weighted sum or difference of shares, over questions.

    Attributes:
        value: the estimate; nan if nothing was counted.
        interval: 95 % interval.
        deviations: [N], the contribution of each question to the value minus its expected contribution. They sum to 0,
            and the correlation of two estimates over the same questions is the correlation of their deviations.
    """

    value: float
    interval: Interval
    deviations: np.ndarray

    def correlation(self, other: "Estimate") -> float | None:
        """Correlation with an estimate over the same questions; None if one of the two does not vary."""
        spread = math.sqrt(float(self.deviations @ self.deviations) * float(other.deviations @ other.deviations))
        if not spread > _SMALLEST_SPREAD:
            return None
        return float(np.clip(self.deviations @ other.deviations / spread, -1.0, 1.0))


def share_of_clusters(successes: np.ndarray, trials: np.ndarray) -> Estimate:
    """The share of successes, where trials of the same question are correlated.

    The effective number of trials is the number of independent trials that would have the same variance. If nothing
    varies, it cannot be estimated, and every question counts as one trial.

    Args:
        successes: [N], number of successes per question.
        trials: [N], number of trials per question. Questions without trials do not count.
    """
    total, questions = float(trials.sum()), int((trials > 0).sum())
    if not total:
        return Estimate(math.nan, (0.0, 1.0), np.zeros(len(trials)))
    share = float(successes.sum()) / total
    deviations = (successes - share * trials) / total
    variance = float(deviations @ deviations)
    varies = questions > 1 and variance > _SMALLEST_SPREAD
    effective = min(total, share * (1 - share) / variance) if varies else questions
    return Estimate(share, wilson_interval(share * effective, effective), deviations)


def weighted_sum(first: Estimate, weight: float, second: Estimate, other_weight: float) -> Estimate:
    """``weight`` x ``first`` + ``other_weight`` x ``second``, with weights of at least 0.

    If one of the two does not vary, they are assumed to be fully correlated.
    """
    if weight == 0 or other_weight == 0:
        only, its_weight = (second, other_weight) if weight == 0 else (first, weight)
        low, high = only.interval
        return Estimate(its_weight * only.value, (its_weight * low, its_weight * high), its_weight * only.deviations)
    found = first.correlation(second)
    correlation = 1.0 if found is None else found
    low, high = (
        _joined(weight * abs(end - first.value), other_weight * abs(other_end - second.value), correlation)
        for end, other_end in zip(first.interval, second.interval, strict=True)
    )
    value = weight * first.value + other_weight * second.value
    deviations = weight * first.deviations + other_weight * second.deviations
    return Estimate(value, (value - low, value + high), deviations)


def difference_interval(first: Estimate, second: Estimate) -> Interval:
    """Interval of ``first`` minus ``second``, over the same questions.

    The correlation has Newcombe's continuity correction (1998, Statistics in Medicine 17:2635, method 10), because two
    strategies that agree on a few questions are not known to agree in general.
    """
    correlation = first.correlation(second) or 0.0
    if correlation > 0:
        spread = math.sqrt(float(first.deviations @ first.deviations) * float(second.deviations @ second.deviations))
        correlation = max(0.0, correlation - 1 / (2 * len(first.deviations) ** 2 * spread))
    difference = first.value - second.value
    low = _joined(first.value - first.interval[0], second.interval[1] - second.value, -correlation)
    high = _joined(first.interval[1] - first.value, second.value - second.interval[0], -correlation)
    return max(-1.0, difference - low), min(1.0, difference + high)


def _joined(one: float, other: float, correlation: float) -> float:
    """The length of the sum of two correlated deviations."""
    return math.sqrt(max(0.0, one**2 + other**2 + 2 * correlation * one * other))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value of McNemar's test.

    Under the null hypothesis each strategy has half of the questions that only one of them answered correctly.
    """
    # Half of the binomial distribution is its other half's mirror image. scipy.stats, which `sftkey train` needs for
    # nothing else, takes a second to import.
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance; None if both always give the same verdict, as chance would."""
    number = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / number
    counts, others = Counter(first), Counter(second)
    expected = sum(counts[value] * others[value] for value in counts) / number**2
    return (observed - expected) / (1 - expected) if expected < 1 else None


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """Probability that at least one of k samples drawn without replacement is correct (arXiv:2107.03374, eq. 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)
