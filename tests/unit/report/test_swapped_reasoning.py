"""What answers follow, in all forms of a comparison and on the page of a study."""

import json
from pathlib import Path

import pytest

from sftkey_dist.cli.output import show_comparison
from sftkey_dist.console import console
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.records import record_evaluation
from sftkey_dist.report.evidence import COMPARISON
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.markdown import to_markdown
from sftkey_dist.report.swapped_over_seeds import swapped_over_seeds
from sftkey_dist.run_dir import RunDir
from tests.finished_run import write_run, write_swaps

OUTCOMES = {"sft": "f" * 4 + "k" * 14 + "nu", "sft-tag": "f" * 15 + "k" * 4 + "u"}
"""Of 20 questions 11 are followed by sft-tag alone."""


def put(folder: Path, carried: str = "") -> Path:
    write_run(folder, dict.fromkeys(OUTCOMES, 12))
    for strategy, outcomes in OUTCOMES.items():
        evaluation = folder / "evaluation" / strategy
        of_own = carried if strategy == "sft-tag" else ""
        record_evaluation(RunDir(folder), strategy, evaluation, write_swaps(evaluation, outcomes, of_own))
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    return put(tmp_path / "study", "f" * 10 + "k" * 10)


def test_every_form_shows_shares_and_differences_beyond_chance(run):
    comparison, (json_file, markdown, page, *_) = compare([run])
    lines = markdown.read_text().splitlines()
    (heads,) = (line for line in lines if line.startswith("| strategy | n | right"))
    assert heads == "| strategy | n | right | follows | keeps | neither | carries | n (carries) |"
    (tagged,) = (line for line in lines if line.startswith("| sft-tag | 19 | 1.000"))
    assert "| 0.789 [0.57, 0.91] | 0.211 [0.09, 0.43] | 0.000 [0.00, 0.17] | 0.500 [0.30, 0.70] | 20 |" in tagged
    (test,) = (line for line in lines if line.startswith("| follows | sft - sft-tag"))
    exact = 2 * 0.5**11
    assert "| 19 | -0.579 [" in test
    assert test.endswith(f"| 0 / 11 | {2 * exact:.4f} \\* |"), (
        "McNemar's test, for two tests; carries has one side only"
    )
    assert "- sft: questions that were passed over: no_donor: 3." in lines
    assert 'href="#swapped"' in page.read_text()
    assert "0.789 [0.57, 0.91]" in page.read_text()
    with console.capture() as capture:
        show_comparison(comparison, [])
    shown = capture.get()
    assert "differences in what answers follow" in shown
    assert "0.57-0.91  0.09-0.43  0.00-0.17  0.30-0.70" in shown, "it fits into 80 columns"
    content = json.loads(json_file.read_text())
    assert content["rows"][1]["swapped_reasoning"]["follows"]["value"] == 15 / 19
    assert [test["measure"] for test in content["swapped_reasoning_tests"]] == ["right", "follows"]
    assert "swapped" not in content["rows"][1], "the records have a file of their own"


def test_nothing_is_shown_where_nothing_was_asked_for(run):
    before = read_comparison([run]).rows[0]
    for strategy in OUTCOMES:
        record_evaluation(RunDir(run), strategy, run / "evaluation" / strategy, None)
    comparison = read_comparison([run])
    assert comparison.swapped == {}
    assert "carries" not in to_markdown(comparison)
    assert comparison.to_json().keys() == {"rows", "paired_tests", "winners_by_alpha"}
    row = comparison.rows[0].to_json()
    assert row == {name: value for name, value in before.to_json().items() if name != "swapped_reasoning"}


def test_over_seeds_the_table_has_means_and_paired_differences(tmp_path):
    by_strategy: dict[str, dict[int, object]] = {name: {} for name in OUTCOMES}
    for seed, follows in ((1, 5), (2, 9), (3, 8)):
        folder = put(tmp_path / f"seed-{seed}")
        evaluation = folder / "evaluation" / "sft-tag"
        write_swaps(evaluation, "f" * follows + "k" * (20 - follows))
        _, (json_file, *_) = compare([folder])
        for row in COMPARISON.read(json_file).rows:
            by_strategy[row.strategy][seed] = row.result
    reading, _, heads, _, sft, tagged, _ = swapped_over_seeds(by_strategy)
    assert "follows" in reading
    assert heads == "| strategy | right | follows | keeps | neither | carries | follows - sft | seeds x n |"
    assert "| 0.211 [0.12, 0.33] |" not in sft
    assert "| 0.211 in each |" in sft or "| 0.211 [" in sft
    mean = (5 + 9 + 8) / 60
    assert f"| {mean:.3f} [" in tagged
    assert f"**{mean - 4 / 19:+.3f} [" in tagged or f"| {mean - 4 / 19:+.3f} [" in tagged
    assert tagged.endswith("| 3 x 20 |")
    assert swapped_over_seeds({"sft": {}}) == []
