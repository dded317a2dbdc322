"""The result in words claims no more than the intervals allow."""

from dataclasses import replace

import pytest

from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.headline import headline
from sftkey_dist.report.numbers import number, with_interval, with_p_value
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS
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


def test_the_highest_score_by_unjudged_outputs_alone_is_no_win(tmp_path):
    run = write_run(tmp_path / "run", {"sft": 9, "sft-tag": 8})
    verdicts = {
        "sft": ["incorrect"] * 8 + ["correct"] * 9 + ["incorrect"] * 3,
        "sft-tag": ["correct"] * 8 + ["unjudged"] * 12,
    }
    for strategy, of_strategy in verdicts.items():
        file = run / "evaluation" / strategy / "records.jsonl"
        found = zip(RECORDS.read(file), of_strategy, strict=True)
        RECORDS.write(file, [replace(record, verdict=Verdict(verdict)) for record, verdict in found])
    comparison = read_comparison([run])
    assert comparison.best == ["sft"]
    assert comparison.leader is None
    assert "but sft-tag scored higher on the questions that were judged for both" in headline(comparison)
    assert comparison.close_to("sft") == []


def test_a_strategy_with_other_questions_is_said_to_be_untested(tmp_path):
    runs = [
        write_run(tmp_path / "a", {"sft": 2, "sftkey-tag": 19}),
        write_run(tmp_path / "b", {"sft": 18}, name="other/test"),
    ]
    comparison = read_comparison(runs)
    assert comparison.leader is None
    assert headline(comparison).startswith("a/sftkey-tag scores higher than a/sft, by ")
    assert headline(comparison).endswith("b/sft answered other questions.")


def test_a_folder_that_is_named_twice_is_compared_once(tmp_path):
    run = write_run(tmp_path / "a", {"sft": 2, "sft-tag": 3})
    assert read_comparison([run, tmp_path / "b" / ".." / "a"]).labels == ["sft", "sft-tag"]


def test_records_that_are_gone_are_one_line(tmp_path):
    run = write_run(tmp_path / "a", {"sft": 2, "sft-tag": 3})
    (run / "evaluation" / "sft" / "records.jsonl").unlink()
    with pytest.raises(DataError, match=r"records\.jsonl: there are no records of outputs; run `sftkey evaluate`"):
        _ = read_comparison([run]).tests


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (with_interval(0.012, (0.003, 0.021)), "0.012 [0.003, 0.021]"),
        (with_interval(0.812, (0.751, 0.859)), "0.812 [0.75, 0.86]"),
        (with_interval(-0.0004, (-0.02, 0.0)), "0.000 [-0.02, 0.00]"),
        (number(-0.0001), "0.000"),
        (with_p_value(0.0496), "p 0.049"),
        (with_p_value(0.0504), "p 0.050"),
    ],
)
def test_rounding_hides_no_sign_and_no_significance(shown, expected):
    assert shown == expected
