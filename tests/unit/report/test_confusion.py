"""Which answer was given for which, where the answers are a few labels."""

import json
from dataclasses import replace

import pytest

from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.confusion import OTHER, UNLABELLED, confusions
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS
from tests.finished_run import write_run

PAIRS = [
    *[("approve", "approve")] * 8,
    *[("approve", "reject")] * 3,
    *[("reject", "I reject this.")] * 4,
    *[("reject", "**Approve**")] * 2,
    *[("reject", "no idea")] * 2,
    ("reject", ""),
]
"""Reference and answer of twenty outputs."""


def write_answers(run, pairs, verdict=None):
    """Give the outputs of every strategy these references and answers."""
    for file in (run / "evaluation").rglob("records.jsonl"):
        records = [
            replace(
                record,
                reference={"reasoning": "…", "answer": reference},
                answer={"answer": answer},
                fields={"answer": verdict or Verdict("correct" if reference in answer else "incorrect")},
            )
            for record, (reference, answer) in zip(RECORDS.read(file), pairs, strict=True)
        ]
        RECORDS.write(file, records)
    return run


def allow(run, labels):
    """The contract enumerates the answers."""
    config = json.loads((run / "config.json").read_text())
    config["contract"]["segments"][-1]["check"] = {"one_of": labels}
    (run / "config.json").write_text(json.dumps(config))


@pytest.fixture
def run(tmp_path):
    return write_answers(write_run(tmp_path / "run", {"sft": 12, "sft-tag": 12}), PAIRS)


def test_answers_are_counted_by_the_label_that_they_name(run):
    first, second = confusions(read_comparison([run]))
    assert (first.strategy, second.strategy, first.segment) == ("sft", "sft-tag", "answer")
    assert first.heads == ("approve", "reject", OTHER)
    assert first.rows == (("approve", (8, 3, 0)), ("reject", (2, 4, 3)))


def test_the_contract_names_the_labels_and_their_order(run):
    allow(run, ["review", "reject", "approve"])
    (found, _) = confusions(read_comparison([run]))
    assert found.heads == ("review", "reject", "approve", OTHER)
    assert found.rows == (("review", (0, 0, 0, 0)), ("reject", (0, 4, 2, 3)), ("approve", (0, 3, 8, 0)))


def test_the_diagonal_has_the_right_answers_alone(run):
    """What a judge or a person decided counts, whatever the text names."""
    write_answers(run, PAIRS, Verdict.INCORRECT)
    assert confusions(read_comparison([run]))[0].rows == (("approve", (0, 3, 8)), ("reject", (2, 0, 7)))
    write_answers(run, PAIRS, Verdict.CORRECT)
    assert confusions(read_comparison([run]))[0].rows == (("approve", (11, 0, 0)), ("reject", (0, 9, 0)))


def test_a_reference_that_is_no_label_has_a_row(run):
    allow(run, ["approve", "review"])
    assert confusions(read_comparison([run]))[0].rows[-1] == (UNLABELLED, (2, 0, 7))


@pytest.mark.parametrize(
    "references",
    [["same"] * 20, [f"answer {number}" for number in range(20)], ["x" * 41, "y"] * 10, ["", "y"] * 10],
    ids=["one", "many", "long", "empty"],
)
def test_answers_that_are_not_enumerated_have_no_table(run, references):
    write_answers(run, [(reference, "y") for reference in references])
    assert confusions(read_comparison([run])) == []
    _, (_, markdown, page, *_) = compare([run])
    assert "Given answers" not in markdown.read_text()
    assert 'id="answers"' not in page.read_text()


def test_the_page_and_markdown_show_the_tables_below_everything_else(run):
    _, (_, markdown, page, *_) = compare([run])
    text = markdown.read_text()
    assert "| reject | 2 | 4 | 3 | 9 |" in text[text.index("Highest score by alpha") :]
    text = page.read_text()
    answers = text[text.index('id="answers"') : text.index('id="failures"')]
    assert text.index('id="figures"') < text.index('id="answers"')
    assert "<th>approve</th><th>reject</th><th>other / none</th><th>n</th>" in answers
    assert answers.count("<table") == 2
    assert '<td class="same" style="--share: 0.44">4</td>' in answers
