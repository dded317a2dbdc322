"""Means over seeds, and differences paired by seed."""

import math

import numpy as np
import pytest

from sftkey_dist.evaluation.over_seeds import mean_over_seeds, paired_over_seeds


def test_means_over_seeds_are_students():
    mean = mean_over_seeds([1.0, 2.0, 3.0])
    assert mean.value == 2.0
    assert mean.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), rel=1e-6)
    assert math.isnan(mean_over_seeds([1.0]).interval[0])
    paired = paired_over_seeds({1: 0.5, 2: 0.7, 3: 0.9}, {2: 0.6, 1: 0.45, 4: 0.0})
    assert (paired.mean.number, paired.seeds_higher, paired.seeds_lower, paired.sign) == (2, 2, 0, 0)
    assert paired.mean.value == pytest.approx(0.075)
    assert paired_over_seeds({1: 1.0}, {2: 1.0}) is None


@pytest.mark.parametrize("values", [[0.99, 1.0, 0.9], [0.0, 0.0, 0.01], [0.0, 1.0], [0.98, 1.0], [1.0, 1.0, 1.0, 0.0]])
def test_the_interval_of_a_share_lies_in_0_to_1_and_holds_the_mean(values):
    mean = mean_over_seeds(values)
    low, high = mean.interval
    assert 0 <= low < mean.value < high <= 1


def test_the_interval_of_a_share_in_the_middle_is_students():
    values = [0.50, 0.52, 0.48, 0.51]
    found, students = mean_over_seeds(values), mean_over_seeds(values, is_share=False)
    assert found.interval == pytest.approx(students.interval, abs=2e-4)
    assert students.interval[1] - students.value == pytest.approx(3.182446 * np.std(values, ddof=1) / 2)


def test_seeds_that_are_all_alike_are_no_sample_to_test_by():
    assert not mean_over_seeds([1.0, 1.0, 1.0]).has_interval
    assert mean_over_seeds([1.0, 1.0, 1.0], questions=10).interval == pytest.approx((0.7225, 1.0), abs=1e-4)
    paired = paired_over_seeds({1: 0.5, 2: 0.5}, {1: 0.25, 2: 0.25})
    assert (paired.p_value, paired.sign, paired.mean.has_interval) == (None, 0, False)
    assert paired_over_seeds({1: 0.5}, {1: 0.25}).p_value is None


def test_a_difference_of_shares_is_at_most_1():
    low, high = paired_over_seeds({1: 1.0, 2: 0.7, 3: 0.9}, {1: 0.0, 2: 0.1, 3: 0.2}).mean.interval
    assert -1 <= low < 0.77 < high == 1.0
