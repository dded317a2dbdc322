import pytest
import torch
from transformers import (
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.training.steps.schedule import learning_rate


def rates(num_steps, **settings):
    optimization = OptimizationConfig(**({"learning_rate": 1.0} | settings))
    return [learning_rate(step, num_steps, optimization) for step in range(num_steps)]


def test_warms_up_linearly_then_falls_along_a_cosine_to_the_floor():
    values = rates(101, warmup_ratio=0.1, min_learning_rate_ratio=0.2)
    assert values[:11] == pytest.approx([(i + 1) / 11 for i in range(11)])
    assert values[11] == 1.0
    assert values[-1] == pytest.approx(0.2)
    assert values[11:] == sorted(values[11:], reverse=True)
    assert values[(11 + 100) // 2] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(
    ("num_steps", "warmup_ratio", "expected"),
    [
        (1, 0.0, [1.0]),
        (1, 0.03, [1.0]),
        (1, 0.99, [1.0]),
        (2, 0.0, [1.0, 0.1]),
        (2, 0.03, [1.0, 0.1]),
        (2, 0.5, [1.0, 0.1]),
        (2, 0.99, [1.0, 0.1]),
        (3, 0.0, [1.0, 0.55, 0.1]),
        (3, 0.03, [1.0, 1.0, 0.1]),
        (3, 0.5, [0.5, 1.0, 0.1]),
        (3, 0.99, [0.5, 1.0, 0.1]),
        (4, 0.25, [1.0, 1.0, 0.55, 0.1]),
        (4, 0.99, [1 / 3, 2 / 3, 1.0, 0.1]),
        (5, 0.0, [1.0, 0.8682, 0.55, 0.2318, 0.1]),
    ],
)
def test_shortest_stages_begin_above_zero_and_end_at_the_minimum(num_steps, warmup_ratio, expected):
    assert rates(num_steps, warmup_ratio=warmup_ratio) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("floor", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.01, 1 / 3, 0.5, 0.9, 0.999])
def test_rates_are_positive_at_first_never_above_the_peak_and_at_the_minimum_last(floor, warmup_ratio):
    for num_steps in range(2, 40):
        values = rates(num_steps, warmup_ratio=warmup_ratio, min_learning_rate_ratio=floor, learning_rate=3e-5)
        assert values[0] > 0
        assert max(values) <= 3e-5
        assert values[-1] == 3e-5 * floor


@pytest.mark.parametrize(("num_steps", "warmup_ratio"), [(50, 0.0), (50, 0.1), (101, 0.25)])
def test_the_cosine_is_transformers_own_whose_last_step_is_one_later(num_steps, warmup_ratio):
    """Theirs rises from 0, in a step that trains nothing, and reaches its minimum after the last step."""
    warmup_steps = -(-int(warmup_ratio * num_steps * 100) // 100)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup_steps, num_steps - 1, min_lr_rate=0.1)
    of_step = [theirs.lr_lambdas[0](step) for step in range(num_steps)]
    ours = rates(num_steps, warmup_ratio=warmup_ratio)
    assert ours[warmup_steps:] == pytest.approx(of_step[warmup_steps:])
    assert ours[:warmup_steps] == pytest.approx(of_step[1 : warmup_steps + 1])


def test_no_warm_up_starts_at_the_peak():
    assert rates(10, warmup_ratio=0.0)[0] == 1.0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "linear"}, [0.5, 1.0, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1]),
        ({"schedule": "constant"}, [0.5, 1.0, *[1.0] * 7]),
        ({"schedule": "wsd", "decay_ratio": 1 / 3}, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7, 0.4, 0.1]),
        ({"schedule": "wsd", "decay_ratio": 1.0}, [0.5, 1.0, *[1 - 0.15 * step for step in range(7)]]),
    ],
)
def test_other_schedules_fall_as_their_names_say(settings, expected):
    assert rates(9, **({"warmup_ratio": 0.2} | settings)) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "wsd"])
def test_other_schedules_are_transformers_own_whose_last_step_is_one_later(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = (
        get_linear_schedule_with_warmup(optimizer, 0, 49)
        if schedule == "linear"
        else get_wsd_schedule(optimizer, 0, 10, num_stable_steps=39, decay_type="linear", min_lr_ratio=0.0)
    )
    of_step = [theirs.lr_lambdas[0](step) for step in range(50)]
    assert rates(50, schedule=schedule, warmup_ratio=0.0, min_learning_rate_ratio=0.0) == pytest.approx(of_step)


def test_a_decay_as_long_as_the_stage_begins_where_the_warm_up_has_reached_the_peak():
    settings = {"schedule": "wsd", "decay_ratio": 1.0, "min_learning_rate_ratio": 0.0}
    assert rates(5, warmup_ratio=0.4, **settings) == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0])
    assert rates(3, warmup_ratio=0.99, **settings) == pytest.approx([0.5, 1.0, 0.0])


def test_a_schedule_that_is_not_used_is_in_no_digest():
    assert not {"schedule", "decay_ratio"} & OptimizationConfig(decay_ratio=0.5).model_dump().keys()
    assert "decay_ratio" not in OptimizationConfig(schedule="linear").model_dump()
    assert OptimizationConfig(schedule="wsd").model_dump()["decay_ratio"] == 0.2
