import pytest

from sftkey_dist.config.schema import OptimizationConfig
from sftkey_dist.training.schedule import learning_rate


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


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_shortest_stages_have_positive_rates(num_steps):
    assert all(0 < rate <= 1 for rate in rates(num_steps, warmup_ratio=0.5))


def test_no_warm_up_starts_at_the_peak():
    assert rates(10, warmup_ratio=0.0)[0] == 1.0
