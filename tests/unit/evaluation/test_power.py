"""At the planned size of a comparison, the project's own tests find the difference four times in five."""

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy import stats

from sftkey_dist.evaluation.over_seeds import paired_over_seeds
from sftkey_dist.evaluation.paired import compare_pair
from sftkey_dist.evaluation.power import (
    POWER,
    Spread,
    errors_apart,
    is_underpowered,
    least_seeds,
    paired_differences,
    questions_needed,
    seen_over_questions,
    seen_over_seeds,
    smallest_difference,
    spread_of,
    standard_error,
)
from sftkey_dist.evaluation.statistics import mcnemar_exact
from tests.records import output_record

SEEDS_ALONE = Spread(seeds=0.01**2, questions=0.0, both=0.2)
QUESTIONS_TOO = Spread(seeds=0.01**2, questions=0.1, both=0.1)
NUM_STUDIES = 1200
TOLERANCE = 0.035
"""Three standard errors of a share of 0.8 among so many studies."""


def simulated(spread: Spread, mean: float, num_seeds: int, num_questions: int, rng) -> np.ndarray:
    """The differences of one study, [S, Q]."""
    return (
        mean
        + rng.normal(0, math.sqrt(spread.seeds), (num_seeds, 1))
        + rng.normal(0, math.sqrt(spread.questions), num_questions)
        + rng.normal(0, math.sqrt(spread.both), (num_seeds, num_questions))
    )


def share_found(spread: Spread, mean: float, num_seeds: int, num_questions: int) -> float:
    """The share of studies in which the paired test over seeds finds a difference."""
    rng = np.random.default_rng(num_seeds)
    zero = dict.fromkeys(range(num_seeds), 0.0)
    studies = (simulated(spread, mean, num_seeds, num_questions, rng).mean(axis=1) for _ in range(NUM_STUDIES))
    return float(np.mean([paired_over_seeds(dict(enumerate(study)), zero).p_value < 0.05 for study in studies]))


@pytest.mark.parametrize(("num_seeds", "mean"), [(2, 0.2), (5, 0.04), (12, 0.02)])
def test_a_study_of_the_planned_size_finds_the_difference_four_times_in_five(num_seeds, mean):
    num_questions = questions_needed(SEEDS_ALONE, num_seeds, mean)
    assert share_found(SEEDS_ALONE, mean, num_seeds, num_questions) == pytest.approx(POWER, abs=TOLERANCE)
    assert smallest_difference(SEEDS_ALONE, num_seeds, num_questions) == pytest.approx(mean, rel=0.01)
    assert smallest_difference(SEEDS_ALONE, num_seeds, num_questions - 1) > mean


def test_sums_of_quantiles_would_miss_the_tolerance():
    """Those of t are the usual approximation, and those of the normal distribution leave out the degrees of freedom."""
    error = standard_error(SEEDS_ALONE, 2, 50)
    for apart in (stats.t.ppf(0.975, 1) + stats.t.ppf(POWER, 1), errors_apart(1)):
        assert share_found(SEEDS_ALONE, apart * error, 2, 50) < POWER - TOLERANCE


def test_questions_that_differ_alike_for_all_seeds_need_more_and_the_test_then_finds_at_least_as_often():
    num_questions = questions_needed(QUESTIONS_TOO, 5, 0.04)
    assert num_questions > 1.5 * questions_needed(SEEDS_ALONE, 5, 0.04)
    assert share_found(QUESTIONS_TOO, 0.04, 5, num_questions) > POWER - TOLERANCE


@pytest.mark.parametrize(("discordant", "mean"), [(0.3, 0.05), (0.2, 0.1)])
def test_one_seed_of_the_planned_size_passes_mcnemars_test_four_times_in_five(discordant, mean):
    num_questions = questions_needed(Spread(None, discordant - mean**2, 0.0), 1, mean)
    shares = [(discordant + mean) / 2, (discordant - mean) / 2, 1 - discordant]
    counts = np.random.default_rng(0).multinomial(num_questions, shares, NUM_STUDIES)
    p_value = lru_cache(None)(mcnemar_exact)
    found = np.mean([p_value(int(first), int(second)) < 0.05 for first, second, _ in counts])
    assert found == pytest.approx(POWER, abs=TOLERANCE)


def test_models_that_hardly_differ_in_a_pilot_are_not_promised_that_so_few_questions_are_enough():
    """Two that differ by 0.05 differ in 1 of 20 questions, which is more than the pilot's 1 of 100."""
    pilot, mean = Spread(None, 0.01, 0.0), 0.05
    num_questions = questions_needed(pilot, 1, mean)
    assert smallest_difference(pilot, 1, num_questions) == pytest.approx(mean, rel=0.01)
    assert smallest_difference(pilot, 1, num_questions - 1) > mean
    only_first = np.random.default_rng(0).binomial(num_questions, mean, NUM_STUDIES)
    assert np.mean([mcnemar_exact(int(count), 0) < 0.05 for count in only_first]) > POWER
    over_seeds = questions_needed(Spread(0.0, 0.005, 0.005), 12, mean)
    assert over_seeds == questions_needed(Spread(0.0, 0.02375, 0.02375), 12, mean)
    assert smallest_difference(Spread(0.0, 0.005, 0.005), 12, over_seeds) == pytest.approx(mean, rel=0.01)
    too_few = math.ceil((errors_apart(1) / mean) ** 2 * pilot.questions + 2 / mean)
    only_first = np.random.default_rng(0).binomial(too_few, mean, NUM_STUDIES)
    assert np.mean([mcnemar_exact(int(count), 0) < 0.05 for count in only_first]) < POWER - 2 * TOLERANCE


def test_variances_are_those_of_which_the_differences_are_made():
    rng, spread = np.random.default_rng(0), Spread(seeds=0.04, questions=0.3, both=0.2)
    studies = [simulated(spread, 0.1, 4, 60, rng) for _ in range(400)]
    found = [spread_of(study) for study in studies]
    assert np.mean([one.seeds for one in found]) == pytest.approx(spread.seeds, rel=0.1)
    assert np.mean([one.questions for one in found]) == pytest.approx(spread.questions, rel=0.05)
    assert np.mean([one.both for one in found]) == pytest.approx(spread.both, rel=0.05)
    assert np.std([study.mean() for study in studies]) == pytest.approx(standard_error(spread, 4, 60), rel=0.1)


def test_one_seed_tells_nothing_about_others():
    spread = spread_of(np.array([[1.0, 0.0, 0.0, -1.0, 0.0]]))
    assert spread == Spread(seeds=None, questions=0.5, both=0.0)
    assert questions_needed(spread, 1, 0.1) > 0
    with pytest.raises(ValueError, match="unknown from one seed"):
        questions_needed(spread, 3, 0.1)


def test_seeds_that_vary_too_much_make_a_difference_unreachable():
    spread = Spread(0.05**2, 0.1, 0.1)
    assert [questions_needed(spread, number, 0.05) is None for number in (5, 8, 12)] == [True, True, False]
    assert smallest_difference(spread, 2, 10) > 1
    assert least_seeds(spread, 0.05) == 10
    assert [questions_needed(spread, number, 0.05) is None for number in (9, 10)] == [True, False]
    assert least_seeds(Spread(None, 0.1, 0.1), 0.05) is None
    assert Spread(0.0, 0.0, 0.0).is_zero


def test_differences_are_those_of_questions_that_all_seeds_and_both_strategies_share():
    def answered(*verdicts, **changes):
        return [output_record(verdict, id=f"q{i}", **changes) for i, verdict in enumerate(verdicts)]

    seeds = [answered("correct", "incorrect", "correct"), answered("correct", "correct", "unjudged")]
    others = [answered("incorrect", "incorrect", "correct", "correct"), answered("correct", "incorrect", "correct")]
    paired = paired_differences(seeds, others)
    assert paired.values.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert paired.left_out == 2, "one is unjudged in a seed, and one is missing in all others"
    twice = [[*answered("correct", "correct"), *answered("incorrect", "correct", sample=1)]]
    assert paired_differences(twice, [answered("incorrect", "incorrect")]).values.tolist() == [[0.5, 1.0]]


def test_tests_say_what_they_could_have_seen_and_when_it_was_too_little():
    verdicts = ["correct"] * 15 + ["incorrect"] * 85
    records = {
        "first": [output_record(verdict, id=f"q{i}") for i, verdict in enumerate(verdicts)],
        "second": [output_record(verdict, id=f"q{i}") for i, verdict in enumerate(reversed(verdicts))],
    }
    test = compare_pair("first", "second", records, 0.7)
    assert seen_over_questions(test) == pytest.approx(2.8016 * math.sqrt(0.3 / 100) + 0.01, rel=1e-4)
    assert seen_over_questions(compare_pair("first", "first", records, 0.7)) is None
    over_seeds = paired_over_seeds({1: 0.5, 2: 0.7, 3: 0.6}, dict.fromkeys((1, 2, 3), 0.5))
    assert seen_over_seeds(over_seeds) == pytest.approx(5.653 * 0.1 / math.sqrt(3), rel=1e-3)
    assert seen_over_seeds(paired_over_seeds({1: 0.5}, {1: 0.4})) is None
    assert is_underpowered(0.3, 0.06)
    assert not is_underpowered(0.3, 0.04)
    assert not is_underpowered(0.01, 0.06)
    assert not is_underpowered(None, None)
