"""Differences over seeds and questions."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sftkey_dist.evaluation.crossed import CrossedMean, Outcomes, crossed_difference, crossed_mean, holm_adjusted
from sftkey_dist.report.finished_runs import read_comparison
from tests.finished_run import write_run


def effects(generator: np.random.Generator, seeds: int, questions: int, spreads: tuple[float, float, float]):
    of_seeds, of_questions, rest = spreads
    return (
        generator.normal(0, of_seeds, (seeds, 1))
        + generator.normal(0, of_questions, (1, questions))
        + generator.normal(0, rest, (seeds, questions))
    )


@pytest.mark.parametrize("spreads", [(0.05, 0.3, 0.4), (0.2, 0.0, 0.4), (0.0, 0.5, 0.1), (0.0, 0.0, 0.4)])
@pytest.mark.parametrize("seeds", [3, 12])
def test_ninety_five_of_a_hundred_intervals_contain_the_mean(seeds, spreads):
    generator, repetitions = np.random.default_rng(0), 1000
    found = [crossed_mean(effects(generator, seeds, 60, spreads)) for _ in range(repetitions)]
    covered = sum(low <= 0 <= high for low, high in (one.interval for one in found))
    assert 0.93 <= covered / repetitions <= 1.0
    assert all((one.p_value < 0.05) == (not one.interval[0] <= 0 <= one.interval[1]) for one in found)
    if spreads[0] and seeds == 12:
        assert covered / repetitions <= 0.975  # and no more than that: it isn't simply wide


@pytest.mark.parametrize("seeds", [2, 3])
def test_strategies_that_are_equal_are_rarely_found_to_differ_with_few_seeds(seeds):
    """In all comparisons of a study together, after Holm's correction; seeds differ by 5 points."""
    generator, studies, found = np.random.default_rng(0), 200, 0
    for _ in range(studies):
        outcomes = [effects(generator, seeds, 500, (0.05 / math.sqrt(2), 0.0, 0.4)) for _ in range(4)]
        pairs = [crossed_mean(one - other) for one, other in itertools.combinations(outcomes, 2)]
        found += min(holm_adjusted([pair.p_value for pair in pairs])) < 0.05
    assert found / studies <= 0.08  # 5 of 100, and what 200 studies vary by


def test_interval_is_as_wide_as_that_of_a_bootstrap_over_seeds_and_questions():
    generator = np.random.default_rng(1)
    values = effects(generator, 12, 400, (0.05, 0.5, 0.3))
    weights = [generator.multinomial(n, np.full(n, 1 / n), 20_000) / n for n in values.shape]
    low, high = np.percentile(((weights[0] @ values) * weights[1]).sum(axis=1), [2.5, 97.5])
    found = crossed_mean(values)
    wider = stats.t.ppf(0.975, 11) / stats.norm.ppf(0.975)  # a bootstrap of few seeds is too narrow by up to this
    assert 0.95 * (high - low) <= found.interval[1] - found.interval[0] <= 1.05 * wider * (high - low)
    assert found.value == pytest.approx(values.mean())


def test_without_effects_of_questions_it_is_the_t_test_over_seeds():
    by_seed = np.random.default_rng(2).normal(0.05, 0.04, 12)
    found = crossed_mean(np.repeat(by_seed[:, None], 50, axis=1))
    expected = stats.ttest_1samp(by_seed, 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_it_is_never_surer_than_the_t_test_over_seeds():
    generator = np.random.default_rng(4)
    for _ in range(50):
        values = generator.normal(0.02, 0.01, (3, 1)) + generator.normal(0, 0.5, (3, 200))
        found, over_seeds = crossed_mean(values), stats.ttest_1samp(values.mean(axis=1), 0)
        low, high = over_seeds.confidence_interval(0.95)
        assert found.p_value >= over_seeds.pvalue * (1 - 1e-9)
        assert found.interval[0] <= max(-1.0, low) + 1e-9
        assert found.interval[1] >= min(1.0, high) - 1e-9


def test_equal_differences_of_all_seeds_have_an_interval_over_questions():
    values = np.zeros((3, 1000))
    values[:, :4] = -1
    found = crossed_mean(values)
    low, high = found.interval
    assert found.value == pytest.approx(-0.004)
    assert low < -0.004 < high
    assert 0.01 < found.p_value < 1


def test_outcomes_without_a_difference_have_no_interval():
    outcomes = {seed: Outcomes("q", "0101") for seed in (1, 2)}
    found = crossed_difference(outcomes, outcomes)
    assert found is not None
    assert found.value == 0
    assert found.p_value is None
    assert math.isnan(found.interval[0])


def test_several_samples_of_a_question_have_no_outcomes(tmp_path):
    run = write_run(tmp_path, {"sft": 3})
    records = read_comparison([run]).records["sft"]
    assert Outcomes.of(records).correct.count("1") == 3
    assert Outcomes.of([*records, replace(records[0], sample=1)]) is None


def test_other_questions_and_single_seeds_are_not_compared():
    one, other = {1: Outcomes("q", "01"), 2: Outcomes("q", "11")}, {1: Outcomes("q", "01"), 2: Outcomes("r", "11")}
    assert crossed_difference(one, other) is None
    assert crossed_difference({1: one[1]}, one) is None
    assert crossed_difference(one, {1: one[1], 2: Outcomes("q", "00")}).value == pytest.approx(0.5)


def test_holm_multiplies_by_the_number_of_hypotheses_that_are_left():
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([0.5, 0.9]) == [1.0, 1.0]
    assert holm_adjusted([]) == []


def test_holm_rejects_what_the_closed_test_of_bonferroni_rejects():
    generator = np.random.default_rng(3)
    for p_values in generator.uniform(0, 0.1, (50, 4)):
        for place, adjusted in enumerate(holm_adjusted(list(p_values))):
            sets = [
                chosen for size in range(1, 5) for chosen in itertools.combinations(range(4), size) if place in chosen
            ]
            closed = max(min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets)
            assert adjusted == pytest.approx(closed)


def test_where_only_the_rest_varies_it_stands_for_seeds_and_questions():
    values = np.random.default_rng(5).normal(0, 0.4, (4, 50))
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    found = crossed_mean(0.05 + rest)
    error = math.sqrt((rest**2).sum() / (3 * 49) / rest.size)
    assert found.value == pytest.approx(0.05)
    assert 1 < (found.interval[1] - 0.05) / (stats.norm.ppf(0.975) * error) < 1.05
    assert found.p_value == pytest.approx(2 * stats.norm.sf(0.05 / error), rel=0.2)


def test_degrees_of_freedom_are_satterthwaites_where_all_three_effects_vary():
    values = 0.05 * effects(np.random.default_rng(6), 8, 5, (0.5, 1.0, 0.5))
    of_seeds, of_questions = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_seeds[:, None] - of_questions + values.mean()
    squares = np.array([5 * of_seeds.var(ddof=1), 8 * of_questions.var(ddof=1), (rest**2).sum() / 28])
    assert squares[:2].min() > squares[2], "neither is covered by the rest"
    variance = squares @ [1, 1, -1]
    freedom = variance**2 / (squares**2 / [7, 4, 28]).sum()
    error = math.sqrt(variance / 40)
    found = crossed_mean(values)
    assert found.interval[1] - found.value == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.value) / error, freedom))


@pytest.mark.parametrize(("p_value", "sign"), [(0.0499, -1), (0.05, 0), (0.9, 0), (None, -1)])
def test_a_difference_has_a_sign_below_a_p_value_of_5_percent_or_where_every_answer_says_so(p_value, sign):
    assert CrossedMean(-0.1, (-0.2, 0.0), p_value).sign == sign


def test_other_questions_have_another_digest_and_one_question_says_nothing(tmp_path):
    records = read_comparison([write_run(tmp_path, {"sft": 3})]).records["sft"]
    digest = Outcomes.of(records).questions
    assert Outcomes.of(records[::-1]) == Outcomes.of(records), "in any order"
    assert Outcomes.of([replace(records[0], prompt="another"), *records[1:]]).questions != digest
    one = {seed: Outcomes("q", "1") for seed in (1, 2)}
    assert crossed_difference(one, one) is None
