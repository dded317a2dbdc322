"""Intervals, paired tests and agreement."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

Interval = tuple[float, float]

_Z_95 = 1.959963984540054
_RESAMPLES = 2000
_LARGEST_BLOCK = 4_000_000
"""Drawn counts held at a time."""


def wilson_interval(successes: int, trials: int) -> Interval:
    """95 % Wilson score interval of a share; the whole unit interval without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Resampled sums of one column over another; every question is drawn with all its samples.

    Args:
        numerators: [N, C], C measures of N questions.
        denominators: [N, C].

    Returns:
        [resamples, C]; nan where nothing was drawn.
    """
    number = len(numerators)
    generator, rows = np.random.default_rng(0), max(1, _LARGEST_BLOCK // number)
    blocks = []
    for start in range(0, _RESAMPLES, rows):
        size = min(rows, _RESAMPLES - start)
        picks = generator.multinomial(number, np.full(number, 1 / number), size=size)
        drawn = picks @ denominators
        blocks.append(np.divide(picks @ numerators, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0))
    return np.concatenate(blocks)


def interval_95(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value of McNemar's test: of the questions that one alone got right, half would be each's."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement beyond chance of two raters; None where both say one thing throughout, as chance would."""
    number = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / number
    counts, others = Counter(first), Counter(second)
    expected = sum(counts[value] * others[value] for value in counts) / number**2
    return (observed - expected) / (1 - expected) if expected < 1 else None


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """Chance that one of k samples drawn without replacement is right (Chen et al. 2021, arXiv:2107.03374, eq. 1)."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)
