"""The result in words claims no more than the intervals allow."""

import pytest

from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.headline import headline
from tests.finished_run import write_run


@pytest.fixture
def result_of(tmp_path):
    """The comparison of strategies with these numbers of right answers among 20."""

    def read(right):
        return read_comparison([write_run(tmp_path / "run", right)])

    return read


def test_a_strategy_that_is_ahead_beyond_its_interval_is_named_with_its_lead(result_of):
    comparison = result_of({"sft": 2, "sft-tag": 4, "sftkey-tag": 19})
    assert comparison.leader == "sftkey-tag"
    said = headline(comparison)
    assert said.startswith("sftkey-tag scores higher than sft-tag and sft, by ")
    assert "over sft-tag. It is right more often by 75.0 points (" in said
    assert said.endswith("It keeps the format in 100 % of its outputs.")


def test_the_only_other_strategy_is_named_once(result_of):
    said = headline(result_of({"sft-tag": 2, "sftkey-tag": 19}))
    assert said.startswith("sftkey-tag scores higher than sft-tag, by ")
    assert said.count("sft-tag") == 1


def test_a_lead_that_may_be_chance_is_no_winner(result_of):
    comparison = result_of({"sft-tag": 17, "sftkey-tag": 18})
    assert comparison.leader is None
    assert headline(comparison) == (
        "sftkey-tag has the highest score, 0.930, but it cannot be told apart from sft-tag: a lead may be chance."
    )


def test_only_some_may_be_too_close(result_of):
    comparison = result_of({"sft": 1, "sft-tag": 17, "sftkey-tag": 18})
    assert comparison.leader is None
    assert "cannot be told apart from sft-tag: " in headline(comparison)


def test_a_tie_is_called_a_tie(result_of):
    comparison = result_of({"sft": 3, "sft-tag": 17, "sftkey-tag": 17})
    assert comparison.best == ["sft-tag", "sftkey-tag"]
    assert headline(comparison) == "sft-tag and sftkey-tag have the same score, 0.895."


def test_a_strategy_alone_has_no_result(result_of):
    assert headline(result_of({"sft-tag": 3})) == ""
