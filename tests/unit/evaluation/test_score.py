import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from sftkey_dist.evaluation.paired import AlphaRange, Lead, compare_pair, winners_by_alpha
from sftkey_dist.evaluation.score import macro_average, measures_of, score_by_data_set, score_records
from sftkey_dist.evaluation.statistics import (
    Estimate,
    cohen_kappa,
    mcnemar_exact,
    pass_at_k,
    share_of_clusters,
    weighted_sum,
    wilson_interval,
)
from tests.records import output_record


def record(verdict, keeps=True, **more):
    return output_record(verdict, keeps=keeps, **more)


def records_of(pattern, **more):
    """c correct, i incorrect, u unjudged; capitals break the contract."""
    names = {"c": "correct", "i": "incorrect", "u": "unjudged"}
    return [record(names[sign.lower()], sign.islower(), id=f"q{n}", **more) for n, sign in enumerate(pattern)]


def test_scores_are_the_shares_and_their_composite():
    records = [record("correct")] * 6 + [record("incorrect", keeps=False, truncated=True)] * 4
    scores = score_records(records, alpha=0.7)
    assert (scores.accuracy, scores.format, scores.n) == (0.6, 0.6, 10)
    assert scores.score == pytest.approx(0.7 * 0.6 + 0.3 * 0.6)
    assert scores.violations == {"missing": 4}
    assert scores.truncated == 4
    assert scores.score_interval[0] < scores.score < scores.score_interval[1]


def test_strict_score_gives_nothing_for_a_right_answer_in_a_broken_output():
    scores = score_records(records_of("ccCi"), alpha=0.7)
    assert scores.accuracy == 0.75
    assert scores.strict_score == pytest.approx(0.7 * 0.5 + 0.3 * 0.75)


def test_unjudged_examples_are_not_wrong_ones():
    scores = score_records(records_of("cccciuuu"[1:]), alpha=0.7)
    assert scores.accuracy == 0.75
    assert scores.unjudged == 3
    assert scores.accuracy_bounds == (3 / 7, 6 / 7)


def test_nothing_judged_has_no_accuracy_and_nothing_recorded_is_refused():
    scores = score_records([record("unjudged")], 0.7)
    assert math.isnan(scores.accuracy)
    assert (scores.accuracy_interval, scores.score_interval) == ((0.0, 1.0), (0.0, 1.0))
    assert score_records([record("unjudged")], 0.0).score == 1.0, "accuracy has no weight"
    with pytest.raises(ValueError, match="no records"):
        score_records([], 0.7)


def test_parser_success_counts_answers_that_were_marked_in_broken_outputs_too():
    sources = ["strict", "lenient", "whole", "strict"]
    records = [record("correct", answer_source={"answer": source}) for source in sources]
    assert score_records(records, 0.7).parser_success == 0.75


def test_every_test_set_has_its_scores_and_counts_the_same_in_the_macro_average():
    records = records_of("cccc", data_set="large") + records_of("i", data_set="small")
    by_data_set = score_by_data_set(records, 0.7)
    assert {name: scores.accuracy for name, scores in by_data_set.items()} == {"large": 1.0, "small": 0.0}
    assert macro_average(by_data_set).accuracy == 0.5
    assert score_records(records, 0.7).accuracy == 0.8


def test_key_segments_have_accuracies_of_their_own():
    fields = [{"grade": "correct", "decision": "incorrect"}, {"grade": "correct", "decision": "unjudged"}]
    records = [record("incorrect", fields=of_one) for of_one in fields]
    assert score_records(records, 0.7).fields == {"grade": 1.0, "decision": 0.0}


def test_samples_give_pass_at_k_and_the_majoritys_accuracy():
    samples = [("a", "correct"), ("b", "incorrect"), ("A.", "correct"), ("b", "incorrect")]
    one = [
        record(v, id="q0", sample=i, same_answer_as=i % 2, answer={"answer": text})
        for i, (text, v) in enumerate(samples)
    ]
    other = [record("incorrect", id="q1", sample=i, same_answer_as=0, answer={"answer": "x"}) for i in range(4)]
    scores = score_records(one + other, 0.7)
    assert scores.accuracy == 0.25
    assert scores.pass_at_k == {"1": 0.25, "2": pytest.approx((1 - 1 / 6) / 2), "4": 0.5}
    assert scores.majority_accuracy == 0.5, "of equally frequent answers the first counts"
    samples = [("", "incorrect"), ("", "incorrect"), ("a", "correct")]
    empty = [
        record(v, id="q0", sample=i, same_answer_as=same, answer={"answer": text})
        for i, (same, (text, v)) in enumerate(zip((0, 0, 2), samples, strict=True))
    ]
    assert score_records(empty, 0.7).majority_accuracy == 1.0, "an empty answer has no vote"


@pytest.mark.parametrize("questions", [1, 2, 5])
@pytest.mark.parametrize("verdict", ["correct", "incorrect"])
def test_samples_that_are_all_alike_say_no_more_than_their_questions(questions, verdict):
    one = [record(verdict, sample=i, answer={"answer": "x"}) for i in range(4)]
    records = [replace(r, id=f"q{q}") for q in range(questions) for r in one]
    scores = score_records(records, 0.7)
    assert scores.accuracy_interval == wilson_interval(questions * (verdict == "correct"), questions)
    assert scores.format_interval == wilson_interval(questions, questions)
    assert all(high - low > 0.2 for low, high in (scores.accuracy_interval, scores.score_interval))


def test_without_samples_intervals_are_wilsons_and_the_scores_is_the_accuracys_where_that_is_the_score():
    for pattern in ("i", "c", "ccCi", "ciciciC", "Ci" * 9, "ccccuuu"):
        judged = pattern.lower().replace("u", "")
        for alpha in (1.0, 0.0):
            scores = score_records(records_of(pattern), alpha)
            assert scores.accuracy_interval == pytest.approx(wilson_interval(judged.count("c"), len(judged)))
            lower = sum(sign.islower() for sign in pattern)
            assert scores.format_interval == pytest.approx(wilson_interval(lower, len(pattern)))
            assert scores.score_interval == (scores.accuracy_interval if alpha else scores.format_interval)


@given(st.lists(st.text("cCiIuU", min_size=1, max_size=5), min_size=1, max_size=12), st.floats(0, 1))
def test_every_interval_lies_in_0_to_1_has_a_width_and_holds_its_measure(samples, alpha):
    def records_with(patterns):
        answered = [(f"q{q}", r) for q, pattern in enumerate(patterns) for r in records_of(pattern)]
        return [replace(r, id=name, answer={"answer": "x"}) for name, r in answered]

    scores = score_records(records_with(samples), alpha)
    for value, (low, high) in (
        (scores.accuracy, scores.accuracy_interval),
        (scores.format, scores.format_interval),
        (scores.score, scores.score_interval),
    ):
        assert -1e-9 <= low < high <= 1 + 1e-9
        assert math.isnan(value) or low - 1e-9 <= value <= high + 1e-9
    pair = {"a": records_with(samples), "b": records_with([pattern.swapcase() for pattern in samples])}
    test = compare_pair("a", "b", pair, alpha)
    if test is not None:
        for value, (low, high) in (
            (test.accuracy_difference, test.accuracy_difference_interval),
            (test.score_difference, test.score_difference_interval),
        ):
            assert -1 <= low < high <= 1
            assert low - 1e-9 <= value <= high + 1e-9


def test_the_interval_of_the_score_covers_what_it_is_of():
    """Over draws of 40 questions with four samples each, whose difficulty varies: about 95 % of intervals hold it."""
    rng, hits, alpha = np.random.default_rng(0), np.zeros(2), 0.7
    for _ in range(400):
        right = rng.random((40, 4)) < rng.beta(2, 1, (40, 1))
        kept = rng.random((40, 4)) < np.where(right, 0.95, 0.6)
        sums = np.stack([right.sum(axis=1), kept.sum(axis=1)], axis=1).astype(float)
        measures = measures_of(sums, np.full((40, 2), 4.0), alpha)
        truth = (2 / 3, alpha * 2 / 3 + (1 - alpha) * (0.95 * 2 / 3 + 0.6 / 3))
        for i, (found, true) in enumerate(zip((measures.accuracy, measures.score), truth, strict=True)):
            hits[i] += found.interval[0] <= true <= found.interval[1]
    assert (hits / 400 > 0.92).all()
    assert (hits / 400 < 0.98).all()


def test_intervals_of_samples_are_wider_than_if_they_were_questions():
    same = [record("correct" if q % 2 else "incorrect", id=f"q{q}", answer={"answer": "x"}) for q in range(20)]
    as_samples = [r for r in same for _ in range(10)]
    as_questions = [replace(r, id=f"{r.id}/{i}") for i, r in enumerate(as_samples)]
    wide, narrow = (score_records(records, 0.7).accuracy_interval for records in (as_samples, as_questions))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (0, 1, 0.0, 0.7935),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_equals_published_values(successes, trials, low, high):
    """Values of Newcombe (1998), table I, method 3, and of the closed form at 5 of 10 and 0 of 1."""
    found = wilson_interval(successes, trials)
    assert found == pytest.approx((low, high), abs=1e-4)
    assert 0 <= found[0] <= found[1] <= 1


def test_mcnemar_is_the_exact_binomial_test_of_the_questions_that_differ():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 9) == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert mcnemar_exact(7, 7) == 1.0


def test_kappa_is_agreement_beyond_chance():
    """The example of Cohen's kappa with 50 cases: 20 + 15 agree, 5 + 10 do not; kappa is 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(["a", "b"], ["a", "b"]) == 1.0


def test_kappa_is_undefined_where_chance_alone_agrees():
    """A judge and a check that call everything wrong have not been seen to tell right from wrong."""
    assert cohen_kappa(["no"] * 3, ["no"] * 3) is None


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample():
    rng = np.random.default_rng(0)
    draws = np.array([rng.permutation([1, 1, 0, 0, 0, 0])[:3].max() for _ in range(4000)])
    assert pass_at_k(2, 6, 3) == pytest.approx(draws.mean(), abs=0.03)


def test_pairs_are_compared_on_the_questions_that_both_answered():
    records = {"a": records_of("ccccccccci"), "b": records_of("iiiiiiiiicc"[:10])[:9] + records_of("u" * 11)[10:]}
    test = compare_pair("a", "b", records, 0.7)
    assert (test.n, test.only_first_correct, test.only_second_correct) == (9, 9, 0)
    assert test.accuracy_difference == 1.0
    assert test.accuracy_p_value == pytest.approx(2 * 0.5**9)
    assert test.accuracy_differs
    assert compare_pair("a", "b", {"a": records["a"], "b": [replace(r, id="other") for r in records["b"]]}, 0.7) is None


def test_a_pair_that_got_the_same_questions_right_has_an_interval_and_says_that_there_is_nothing_to_test():
    test = compare_pair("a", "b", {"a": records_of("ccccc"), "b": records_of("ccccc")}, 0.7)
    assert test.is_degenerate
    assert not test.accuracy_differs
    assert (test.accuracy_difference, test.accuracy_p_value) == (0.0, 1.0)
    assert test.accuracy_difference_interval == pytest.approx((-0.4345, 0.4345), abs=1e-4), "Wilson's for 5 of 5"
    assert compare_pair("a", "b", {"a": records_of("ccccc"), "b": records_of("iiiii")}, 0.7).accuracy_difference == 1.0


def test_an_interval_of_a_difference_is_newcombes():
    """Method 10 of Newcombe (1998, Statistics in Medicine 17:2635), written out."""
    first, second = "c" * 12 + "c" * 9 + "i" * 2 + "i" * 21, "c" * 12 + "i" * 9 + "c" * 2 + "i" * 21
    test = compare_pair("x", "y", {"x": records_of(first), "y": records_of(second)}, 1.0)
    p1, p2 = 21 / 44, 14 / 44
    phi = (12 * 21 - 9 * 2 - 44 / 2) / math.sqrt(21 * 23 * 14 * 30)
    (l1, u1), (l2, u2) = wilson_interval(21, 44), wilson_interval(14, 44)
    low = p1 - p2 - math.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = p1 - p2 + math.sqrt((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2)
    assert test.accuracy_difference_interval == pytest.approx((low, high))
    assert test.score_difference_interval == pytest.approx((low, high)), "with alpha = 1 the score is the accuracy"


def test_pairing_makes_intervals_of_differences_narrower():
    hard = "c" * 50 + "i" * 50
    better = "c" * 55 + "i" * 45
    test = compare_pair("x", "y", {"x": records_of(better), "y": records_of(hard)}, 1.0)
    low, high = test.accuracy_difference_interval
    assert 0 < low < 0.05 < high < 0.11, "unpaired, the interval would reach from -0.09 to 0.19"


def test_the_winner_changes_where_lines_cross():
    measures = {"accurate": (0.9, 0.0), "formal": (0.5, 1.0), "middling": (0.6, 0.5)}
    ranges = winners_by_alpha(measures)
    assert [best.strategies for best in ranges] == [("formal",), ("accurate",)]
    assert ranges[0].end == ranges[1].start == pytest.approx(1 / 1.4)
    assert winners_by_alpha({"one": (0.5, 0.5)}) == [AlphaRange(("one",), 0.0, 1.0)]


def test_lines_cross_that_have_the_same_sum_of_accuracy_and_format():
    formal, accurate = winners_by_alpha({"accurate": (0.8, 0.4), "formal": (0.4, 0.8)})
    assert formal == AlphaRange(("formal",), 0.0, pytest.approx(0.5))
    assert accurate == AlphaRange(("accurate",), pytest.approx(0.5), 1.0)


def test_a_strategy_that_nobody_could_judge_does_not_win():
    assert [best.strategies for best in winners_by_alpha({"sft": (math.nan, 0.1), "other": (0.9, 0.9)})] == [("other",)]
    assert winners_by_alpha({"sft": (math.nan, 0.1)}) == []


def test_questions_of_one_name_and_other_prompts_are_not_paired():
    ours = [record("correct", id="q", data_set="d", prompt="one")]
    theirs = [record("incorrect", id="q", data_set="d", prompt="another")]
    assert compare_pair("a", "b", {"a": ours, "b": theirs}, 0.7) is None


def test_several_samples_are_compared_by_how_often_they_are_right():
    def samples(question, right):
        return [record("correct" if i < right else "incorrect", id=f"q{question}", sample=i) for i in range(2)]

    half = [each for question in range(20) for each in samples(question, 1)]
    never = [each for question in range(20) for each in samples(question, 0)]
    some = [each for question in range(20) for each in samples(question, 2 * (question < 6))]
    test = compare_pair("half", "never", {"half": half, "never": never}, 0.7)
    assert (test.only_first_correct, test.only_second_correct) == (20, 0)
    assert test.accuracy_p_value == pytest.approx(2 * 0.5**20)
    test = compare_pair("half", "some", {"half": half, "some": some}, 0.7)
    assert test.accuracy_difference == pytest.approx(0.2)
    assert (test.only_first_correct, test.only_second_correct) == (14, 6), "as the difference"


def test_samples_that_differ_less_than_by_chance_are_no_more_than_samples():
    found = share_of_clusters(np.array([1.0, 1, 1, 2]), np.full(4, 2.0))
    assert found.value == 5 / 8
    assert found.interval == pytest.approx(wilson_interval(5, 8))


def test_questions_that_one_side_has_unjudged_are_not_compared():
    records = {"a": records_of("ciucu"), "b": records_of("iiucc")}
    for first, second in (("a", "b"), ("b", "a")):
        test = compare_pair(first, second, records, 0.7)
        assert test.n == 3
        assert {test.only_first_correct, test.only_second_correct} == {0, 1}
        assert abs(test.accuracy_difference) == pytest.approx(1 / 3)


def test_numbers_of_samples_may_differ():
    many = [record("correct" if number < 2 else "incorrect", id="q0", sample=number) for number in range(4)]
    test = compare_pair("many", "one", {"many": many, "one": records_of("c")}, 0.7)
    assert (test.only_first_correct, test.only_second_correct) == (0, 1), "half of four against one of one"
    few = [record("correct" if number < 1 else "incorrect", id="q0", sample=number) for number in range(3)]
    test = compare_pair("many", "few", {"many": many, "few": few}, 0.7)
    assert (test.only_first_correct, test.only_second_correct) == (1, 0), "two of four against one of three"


def test_only_judged_samples_count_in_which_side_is_right_more_often():
    all_judged = [record(verdict, id="q0", sample=n) for n, verdict in enumerate(("correct", "incorrect"))]
    one_judged = [record(verdict, id="q0", sample=n) for n, verdict in enumerate(("correct", "unjudged"))]
    records = {"all": all_judged, "one": one_judged}
    test, other = compare_pair("all", "one", records, 0.7), compare_pair("one", "all", records, 0.7)
    assert (test.only_first_correct, test.only_second_correct) == (0, 1), "one of two against one of one"
    assert (other.only_first_correct, other.only_second_correct) == (1, 0)


def test_there_is_something_to_test_where_one_side_alone_is_right():
    for first, second in (("ci", "ii"), ("ii", "ic")):
        test = compare_pair("a", "b", {"a": records_of(first), "b": records_of(second)}, 0.7)
        assert not test.is_degenerate


@pytest.mark.parametrize(
    ("interval", "behind", "ahead"),
    [((-0.2, -0.1), True, False), ((-0.2, 0.0), False, False), ((0.0, 0.2), False, False), ((0.1, 0.2), False, True)],
)
def test_a_lead_is_beyond_its_interval_where_that_is_on_one_side_of_0(interval, behind, ahead):
    lead = Lead("a", "b", 0.0, (-1.0, 1.0), sum(interval) / 2, interval)
    assert (lead.is_behind, lead.is_beyond_interval) == (behind, ahead)


def test_the_lead_of_the_second_is_that_of_the_first_with_the_other_sign():
    test = compare_pair("a", "b", {"a": records_of("ccciii"), "b": records_of("cccccc")}, 0.7)
    (low, high), lead = test.score_difference_interval, Lead.of(test, "b")
    assert (lead.over, lead.accuracy) == ("a", 0.5)
    assert lead.score_interval == (-high, -low)
    assert Lead.of(test, "a").score_interval == (low, high)


def test_a_share_that_does_not_vary_adds_the_whole_of_its_interval():
    one = Estimate(0.5, (0.3, 0.8), np.array([0.1, -0.1]))
    other = Estimate(1.0, (0.6, 1.0), np.zeros(2))
    assert weighted_sum(one, 0.7, other, 0.3).interval == pytest.approx((0.65 - 0.14 - 0.12, 0.65 + 0.21))
