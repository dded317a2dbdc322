"""What answers follow, in all forms of a comparison and on the page of a study."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from sftkey_dist.cli.output import show_comparison
from sftkey_dist.console import console
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.records import record_evaluation
from sftkey_dist.report.evidence import COMPARISON, Result
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
    assert heads == "| strategy | n | right | follows | keeps | neither | carries |"
    (tagged,) = (line for line in lines if line.startswith("| sft-tag | 19 | 1.000"))
    assert "| 0.789 [0.57, 0.91] | 0.211 [0.09, 0.43] | 0.000 [0.00, 0.17] | 0.500 [0.30, 0.70] |" in tagged
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
    by_strategy: dict[str, dict[int, Result]] = {}
    for seed, follows in ((1, 5), (2, 9), (3, 8)):
        folder = write_run(tmp_path / f"seed-{seed}", dict.fromkeys(("sft", "sft-tag", "sftkey-tag"), 12))
        counts = {"sft": 4, "sft-tag": follows, "sftkey-tag": follows + 3 + seed}
        for strategy, count in counts.items():
            evaluation = folder / "evaluation" / strategy
            file = write_swaps(evaluation, "f" * count + "k" * (20 - count))
            record_evaluation(RunDir(folder), strategy, evaluation, file)
        _, (json_file, *_) = compare([folder])
        for row in COMPARISON.read(json_file).rows:
            by_strategy.setdefault(row.strategy, {})[seed] = row.result
    reading, _, heads, _, sft, tagged, key, _ = swapped_over_seeds(by_strategy)
    assert "follows" in reading
    assert heads.endswith("| follows | keeps | neither | carries | follows - sft | follows - its start | seeds x n |")
    assert sft.startswith("| sft | 1.000 [")
    assert sft.endswith("|  |  | 3 x 20 |"), "the baseline is compared with nothing"
    shares = np.array([5, 9, 8]) / 20
    test = ttest_1samp(shares - 0.2, 0)
    low, high = test.confidence_interval()
    mean = f"{shares.mean() - 0.2:+.3f} [{low:+.3f}, {high:+.3f}]"
    assert f"| {mean}, p {test.pvalue:.3f}, 3 up, 0 down |  | 3 x 20 |" in tagged
    test = ttest_1samp([0.2, 0.25, 0.3], 0)
    low, high = test.confidence_interval()
    assert f"| **+0.250 [{low:+.3f}, {high:+.3f}]**, p {test.pvalue:.3f}, 3 up, 0 down | 3 x 20 |" in key
    assert swapped_over_seeds({"sft": {}}) == []
