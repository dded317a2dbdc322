import math

import pytest

from sftkey_dist.watch.curves import Point, curve
from sftkey_dist.watch.words import duration, seconds_left
from tests.records import step_timing


def points(*values, every=1):
    return [Point(number * every, value) for number, value in enumerate(values)]


def test_a_curve_goes_from_its_lowest_to_its_highest_value():
    assert curve(points(0, 1, 2, 3, 4, 5, 6, 7), 8, 8) == "▁▂▃▄▅▆▇█"
    assert curve(points(0, 7), 2, 2, is_ascii=True) == "_#"
    assert curve(points(0.5, 0.5), 2, 2, bounds=(0.0, 1.0)) == "▅▅"
    assert curve(points(100.0, 10.0, 1.0), 3, 3, is_logarithmic=True) == "█▅▁"
    assert curve(points(1.0, 0.0), 2, 2, is_logarithmic=True) == "█▁", "zero has no logarithm"


def test_curves_share_the_axis_of_steps_however_often_their_values_are_measured():
    assert curve(points(0, 7, every=4), 8, 8) == "▁▁▁▁████"
    assert curve([Point(4, 1.0)], 8, 8) == "    ▁▁▁▁", "nothing is known of the steps before"
    assert curve(points(0, 0, 7, 7), 4, 2) == "▁█", "a character shows the mean of its values"
    assert curve([Point(8, 1.0)], 8, 4) == "   ▁", "what is measured after the last step belongs to the right end"


def test_values_that_are_not_finite_are_left_out():
    assert curve(points(0, math.nan, 7, math.inf), 4, 4) == "▁▁██"
    assert curve(points(math.nan), 1, 4) == curve([], 0, 4) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (97200, "1 d 3 h")]
)
def test_durations_have_two_units_at_most(seconds, words):
    assert duration(seconds) == words


def test_the_time_left_counts_what_follows_steps_and_what_a_restart_repeats():
    assert seconds_left([], 10) is None
    timings = [step_timing(step, phase_seconds={"forward": 1.0, "guard": 3.0 * (step == 1)}) for step in range(2)]
    assert seconds_left(timings, 10) == 8 * (1.0 + 4.0) / 2
    assert seconds_left(timings, 2) == 0
