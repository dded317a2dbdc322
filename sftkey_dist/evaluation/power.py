"""The smallest difference in accuracy that a comparison can see, and the size that a comparison needs.

The difference of two strategies on question q with seed s is modelled as mean + a_s + b_q + e_sq, with independent
effects of the seed, of the question, and of both together. Every seed answers the same questions, so the mean over S
seeds and Q questions has the variance var(a) / S + var(b) / Q + var(e) / (S Q). The variances are estimated from the
mean squares of the two-way analysis of variance without replication (Searle, Casella and McCulloch 1992, Variance
Components; Brennan 2001, Generalizability Theory).

A difference is *seen* if a two-sided test at the 5 % level finds it, which must happen with a probability of 80 %. Over
seeds the test is the paired t-test with S - 1 degrees of freedom, and its power follows from the noncentral t
distribution (Owen 1968, Technometrics 10:445; Cohen 1988, Statistical Power Analysis, chapter 2). The usual sum of two
quantiles of t approximates it, and promises too much for few seeds. The t-test does not count var(b), because its
questions are given; here it counts, so that the difference holds for other questions too, and the t-test sees it with
at least the stated power. With one seed the test is McNemar's; its power is that of the normal distribution with the
continuity correction of one question (Edwards 1948, Psychometrika 13:185; Connor 1987, Biometrics 43:207).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, ndtri, stdtrit

from sftkey_dist.evaluation.over_seeds import PairedMean
from sftkey_dist.evaluation.paired import PairedTest
from sftkey_dist.evaluation.score import Question, Records, outcome_sums

POWER = 0.8
"""Probability with which a difference must be seen."""
INTERESTING_DIFFERENCE = 0.05
"""Reports warn of a comparison that finds no difference in accuracy and could not have seen one of this size."""
_LEVEL = 0.05
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class PairedDifferences:
    """The paired differences of two strategies in accuracy.

    Attributes:
        values: [S, Q], first minus second for each seed and each question that all seeds share.
        left_out: number of questions that some seed or strategy lacks, or that is unjudged there.
    """

    values: np.ndarray
    left_out: int


@dataclass(frozen=True)
class Spread:
    """Variances of the paired difference in accuracy.

    Attributes:
        seeds: of its mean over all questions, between seeds; None if only one seed is known.
        questions: of the part that is the same for every seed, between questions. With one seed it includes ``both``.
        both: of the rest, which is different for every seed and question; 0 with one seed.
    """

    seeds: float | None
    questions: float
    both: float

    @property
    def is_zero(self) -> bool:
        """Whether no difference varies, so that there is nothing to plan with."""
        return (self.seeds or 0.0) + self.questions + self.both < _NO_SPREAD


def paired_differences(first: Sequence[Records], second: Sequence[Records]) -> PairedDifferences:
    """The paired differences of two strategies, from the records of each seed, in the same order of seeds."""
    sides = [list(map(_accuracies, records)) for records in (first, second)]
    known = [accuracies for side in sides for accuracies in side]
    every = dict.fromkeys(question for accuracies in known for question in accuracies)
    shared = [q for q in every if all(not math.isnan(accuracies.get(q, math.nan)) for accuracies in known)]
    mine, other = (np.array([[accuracies[q] for q in shared] for accuracies in side]) for side in sides)
    return PairedDifferences(mine - other, len(every) - len(shared))


def _accuracies(records: Records) -> dict[Question, float]:
    """The share of right samples of every question; nan if none was judged."""
    questions, sums, counts = outcome_sums(records)
    return {
        question: correct / judged if judged else math.nan
        for question, correct, judged in zip(questions, sums[:, 0], counts[:, 0], strict=True)
    }


def spread_of(differences: np.ndarray) -> Spread:
    """Estimate the variances from differences of shape [S, Q] with Q of at least 2. None is estimated below 0."""
    num_seeds, num_questions = differences.shape
    if num_seeds == 1:
        return Spread(None, float(differences.var(ddof=1)), 0.0)
    of_seeds, of_questions = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - of_seeds[:, None] - of_questions + differences.mean()
    both = float((rest**2).sum()) / ((num_seeds - 1) * (num_questions - 1))
    return Spread(
        seeds=max(0.0, float(of_seeds.var(ddof=1)) - both / num_questions),
        questions=max(0.0, float(of_questions.var(ddof=1)) - both / num_seeds),
        both=both,
    )


def standard_error(spread: Spread, num_seeds: int, num_questions: int) -> float:
    """Standard error of the mean difference. With one seed, it is that of the two models at hand.

    Raises:
        ValueError: there are several seeds, and the variance between seeds is unknown.
    """
    over_questions = (spread.questions + spread.both / num_seeds) / num_questions
    return math.sqrt(_between_seeds(spread, num_seeds) + over_questions)


def smallest_difference(spread: Spread, num_seeds: int, num_questions: int) -> float:
    """The smallest difference in accuracy that is seen; above 1 if none is. See `standard_error`."""
    correction = 1 / num_questions if num_seeds == 1 else 0.0

    def beyond(difference: float) -> float:
        error = standard_error(_at(spread, difference), num_seeds, num_questions)
        return errors_apart(num_seeds) * error + correction - difference

    return 1 + beyond(1.0) if beyond(1.0) >= 0 else float(brentq(beyond, 0.0, 1.0))


def questions_needed(spread: Spread, num_seeds: int, difference: float) -> int | None:
    """The number of questions with which a difference is seen; None if it is not reachable with so many seeds.

    Raises:
        ValueError: see `standard_error`.
    """
    spread = _at(spread, difference)
    if num_seeds == 1:  # difference = errors * sqrt(variance / Q) + 1 / Q
        scaled = errors_apart(1) * math.sqrt(spread.questions + spread.both)
        return math.ceil(((scaled + math.sqrt(scaled**2 + 4 * difference)) / (2 * difference)) ** 2)
    room = _room_for_questions(spread, num_seeds, difference)
    return math.ceil((spread.questions + spread.both / num_seeds) / room) if room > 0 else None


def _at(spread: Spread, difference: float) -> Spread:
    """The variances of strategies that differ by ``difference`` d.

    Two models that differ in accuracy by d differ in a share d of the questions at least, so that the variance over
    questions is at least d (1 - d), even if a pilot's models differ in fewer questions.
    """
    known, least = spread.questions + spread.both, difference * (1 - difference)
    if known >= least:
        return spread
    share = spread.questions / known if known > 0 else 1.0
    return Spread(spread.seeds, share * least, (1 - share) * least)


def least_seeds(spread: Spread, difference: float) -> int | None:
    """The number of seeds, at least 2, below which a difference is not reachable; None if only one seed is known."""
    if spread.seeds is None:
        return None
    # The quantiles of few seeds are larger than those of the normal distribution, with which the search begins.
    seeds = max(2, math.ceil(spread.seeds * (errors_apart(1) / difference) ** 2))
    while _room_for_questions(spread, seeds, difference) <= 0:
        seeds += 1
    return seeds


@lru_cache(maxsize=64)
def errors_apart(num_seeds: int) -> float:
    """How many standard errors a difference must be from 0 to be seen: 2.80 with one seed, 5.65 with three."""
    if num_seeds == 1:
        return float(ndtri(1 - _LEVEL / 2) + ndtri(POWER))
    freedom = num_seeds - 1
    critical = float(stdtrit(freedom, 1 - _LEVEL / 2))
    return float(brentq(lambda apart: 1 - nctdtr(freedom, apart, critical) - POWER, 1.0, 4 * critical))


def seen_over_seeds(found: PairedMean) -> float | None:
    """The smallest difference that a paired test over seeds could have seen; None where it cannot test."""
    return None if found.p_value is None else errors_apart(found.mean.number) * found.standard_error


def seen_over_questions(test: PairedTest) -> float | None:
    """The smallest difference in accuracy that McNemar's test could have seen; None if no question differs."""
    if test.is_degenerate:
        return None
    apart = (test.only_first_correct - test.only_second_correct) / test.n
    variance = (test.only_first_correct + test.only_second_correct) / test.n - apart**2
    return smallest_difference(Spread(None, variance, 0.0), 1, test.n)


def is_underpowered(p_value: float | None, smallest: float | None) -> bool:
    """Whether a test found nothing, and could not have seen an interesting difference."""
    if p_value is None or smallest is None:
        return False
    return p_value >= _LEVEL and smallest > INTERESTING_DIFFERENCE


def _room_for_questions(spread: Spread, num_seeds: int, difference: float) -> float:
    """What the variance between questions may add to that between seeds, if a difference is to be seen."""
    return (difference / errors_apart(num_seeds)) ** 2 - _between_seeds(spread, num_seeds)


def _between_seeds(spread: Spread, num_seeds: int) -> float:
    """The part of the variance of the mean that more questions do not reduce."""
    if num_seeds == 1:
        return 0.0
    if spread.seeds is None:
        raise ValueError("the variance between seeds is unknown from one seed")
    return spread.seeds / num_seeds
