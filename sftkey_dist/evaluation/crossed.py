"""Differences in accuracy over seeds and questions at once, and the correction for many comparisons.

A test over seeds treats the questions as given, and a test over questions the trained model. Here both are samples: the
same questions are answered after every seed, so a difference has a random effect of its seed, one of its question, and
a rest (a two-way layout with crossed random effects; Searle, Casella and McCulloch 1992, Variance Components, ch. 4).
Unlike a bootstrap of seeds and questions (Owen 2007, Annals of Applied Statistics 1:386), the model gives the same
result each time, and p-values that can be corrected.

The model estimates the variance between seeds, which two or three seeds often show far too small. A difference is
therefore never taken to be surer than by the paired t-test over the same seeds, which allows for that: an interval for
other seeds and other questions cannot be narrower than one for other seeds alone. Otherwise many studies of equal
strategies would find a difference, even after Holm's correction; `test_crossed.py` makes such studies.
"""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from sftkey_dist.evaluation.score import Records, outcome_sums
from sftkey_dist.evaluation.statistics import Interval

_SMALLEST_SPREAD = 1e-12
SIGNIFICANT = 0.05
"""P-values below it count as differences."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Outcomes:
    """Which questions a strategy answered correctly in one run.

    Attributes:
        questions: digest of the questions and their order.
        correct: a character per question: `1` for a correct answer, else `0`. An unjudged answer is not correct.
    """

    questions: str
    correct: str

    @classmethod
    def of(cls, records: Records) -> "Outcomes | None":
        """The outcomes of the records of an evaluation; None with several samples per question."""
        keys, sums, counts = outcome_sums(records)
        if counts[:, 1].max() > 1:
            return None
        digest = hashlib.sha256(repr(keys).encode()).hexdigest()[:16]
        return cls(digest, "".join("1" if correct else "0" for correct in sums[:, 0]))

    @property
    def values(self) -> np.ndarray:
        """1 for a correct answer, 0 for another one; [Q]."""
        return np.frombuffer(self.correct.encode(), dtype=np.uint8) - float(ord("0"))


@dataclass(frozen=True)
class CrossedMean:
    """A mean difference, first minus second, over S seeds and Q questions.

    Attributes:
        value: the mean.
        interval: of 95 %, for other seeds and other questions; nan without variance.
        p_value: two-sided; None without variance: no answer differs, or all of them in the same direction.
    """

    value: float
    interval: Interval
    p_value: float | None

    @property
    def sign(self) -> int:
        """Sign of the difference, 1 or -1, or 0 if the p-value is not below `SIGNIFICANT`."""
        return 0 if self.p_value is not None and self.p_value >= SIGNIFICANT else int(np.sign(self.value))


def crossed_difference(first: Mapping[int, Outcomes], second: Mapping[int, Outcomes]) -> CrossedMean | None:
    """The difference in accuracy between two strategies with outcomes by seed.

    Returns:
        None with fewer than two shared seeds, with one question, or if questions differ between runs.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2 or len({of[seed].questions for of in (first, second) for seed in seeds}) > 1:
        return None
    differences = np.stack([first[seed].values - second[seed].values for seed in seeds])
    return crossed_mean(differences) if differences.shape[1] > 1 else None


def crossed_mean(values: np.ndarray) -> CrossedMean:
    """The mean of values [S, Q] with crossed random effects of their rows and columns, S and Q at least 2."""
    num_rows, num_columns = values.shape
    mean, of_rows, of_columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - of_rows[:, None] - of_columns[None, :] + mean
    # Mean squares, each divided by the number of values, so that they add up to the variance of the mean.
    squares = np.array(
        [
            (num_columns * (of_rows - mean) ** 2).sum() / (num_rows - 1),
            (num_rows * (of_columns - mean) ** 2).sum() / (num_columns - 1),
            (rest**2).sum() / ((num_rows - 1) * (num_columns - 1)),
        ]
    ) / (num_rows * num_columns)
    rows, columns, residual = squares
    # An effect whose mean square is below the rest's has no variance: then the rest stands for it.
    variance = max(rows, residual) + max(columns, residual) - residual
    if variance < _SMALLEST_SPREAD**2:
        return CrossedMean(float(mean), (math.nan, math.nan), None)
    freedom = _degrees_of_freedom(squares, variance, num_rows, num_columns)
    tests = [(math.sqrt(variance), freedom)]
    if rows >= _SMALLEST_SPREAD**2:
        tests.append((math.sqrt(rows), num_rows - 1))  # the paired t-test over rows
    half = max(float(stdtrit(degrees, 0.975)) * error for error, degrees in tests)
    p_value = max(float(2 * stdtr(degrees, -abs(mean) / error)) for error, degrees in tests)
    return CrossedMean(float(mean), (max(-1.0, float(mean) - half), min(1.0, float(mean) + half)), p_value)


def _degrees_of_freedom(squares: np.ndarray, variance: float, num_rows: int, num_columns: int) -> float:
    """Satterthwaite's, of a variance that is a sum of mean squares.

    Where the residual stands for an effect, it counts as a part of its own: that gives too few degrees, never too many.
    """
    rows, columns, residual = squares
    of_rest = (num_rows - 1) * (num_columns - 1)
    parts = [
        (rows, num_rows - 1) if rows > residual else (residual, of_rest),
        (columns, num_columns - 1) if columns > residual else (residual, of_rest),
        (residual, of_rest),
    ]
    return float(variance**2 / sum(square**2 / freedom for square, freedom in parts))


def holm_of_tested(p_values: Mapping[Key, float | None]) -> dict[Key, float]:
    """P-values by name, corrected for the number of tests; names without a test are left out."""
    tested = {name: p_value for name, p_value in p_values.items() if p_value is not None}
    return dict(zip(tested, holm_adjusted(list(tested.values())), strict=True))


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number with Holm's method (1979, Scandinavian Journal of Statistics 6:65)."""
    order = np.argsort(p_values)
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
