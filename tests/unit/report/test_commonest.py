"""What always giving one answer would reach stands beside what the models reach."""

from dataclasses import replace

import pytest

from sftkey_dist.report.commonest import CommonestAnswer
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.headline import headline
from sftkey_dist.report.markdown import to_markdown
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS
from tests.finished_run import NUM_QUESTIONS, write_run


@pytest.fixture
def comparison_of(tmp_path):
    """The comparison of strategies with these numbers of right answers; `answers` are the references."""

    def make(right, answers):
        run = write_run(tmp_path / "run", right)
        for file in (run / "evaluation").rglob("records.jsonl"):
            records = RECORDS.read(file)
            RECORDS.write(
                file,
                [replace(record, reference={"answer": text}) for record, text in zip(records, answers, strict=True)],
            )
        return read_comparison([run])

    return make


def test_strategies_that_are_not_above_the_commonest_answer_are_named(comparison_of):
    answers = ["*reject*"] * 9 + ["approve"] * 6 + ["review"] * 5
    comparison = comparison_of({"sft": 10, "sft-tag": 19}, answers)
    said = CommonestAnswer.of(comparison).in_words()
    assert said == (
        '"*reject*" alone would be the right answer to 45.0 % of the questions; not right more often than that beyond '
        "chance: sft."
    )
    assert r'"\*reject\*" alone would be the right answer to 45.0 % of the questions' in to_markdown(comparison)
    assert headline(comparison) not in said


def test_all_may_be_above_it(comparison_of):
    said = CommonestAnswer.of(comparison_of({"sft": 20}, ["a"] * 8 + ["b"] * 12)).in_words()
    assert said == '"b" alone would be the right answer to 60.0 % of the questions.'


def test_answers_that_are_all_the_same_or_all_different_say_nothing(comparison_of, tmp_path):
    assert CommonestAnswer.of(comparison_of({"sft": 20}, ["a"] * NUM_QUESTIONS)) is None
    assert CommonestAnswer.of(comparison_of({"sft": 20}, list(map(str, range(NUM_QUESTIONS))))) is None


def test_spellings_that_checks_read_alike_are_one_answer(comparison_of):
    answers = ["(A)"] * 5 + ["A"] * 5 + ["B"] * 7 + ["C"] * 3
    found = CommonestAnswer.of(comparison_of({"sft": 10, "sft-tag": 19}, answers))
    assert (found.text, found.share) == ("(A)", 0.5)
