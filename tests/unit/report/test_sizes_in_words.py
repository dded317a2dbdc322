import pytest

from sftkey_dist.report.numbers import in_millions_or_billions


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (118_784, "0.119 M"),
        (134_515_008, "135 M"),
        (999_600_000, "1 B"),
        (7_615_616_512, "7.62 B"),
        (7 * 10**10, "70 B"),
    ],
)
def test_sizes_are_told_in_millions_or_billions(count, told):
    assert in_millions_or_billions(count) == told
