"""What answers follow, in all forms of a comparison and on the page of a study."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from sftkey_dist.cli.output import show_comparison
from sftkey_dist.console import console
from sftkey_dist.evaluation.swapped.summary import SwapShares
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.records import record_evaluation
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.markdown import to_markdown
from sftkey_dist.report.numbers import UNKNOWN
from sftkey_dist.report.study.evidence import COMPARISON, Result
from sftkey_dist.report.study.swapped_over_seeds import swapped_over_seeds
from sftkey_dist.report.swapped import swap_tables
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.swapped import SWAPPED, SwappedReasoning
from tests.finished_run import swapped, write_run, write_swaps

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
    return put(tmp_path / "study", "f" * 6 + "k" * 6 + "u" * 8)


def test_every_form_shows_shares_and_differences_beyond_chance(run):
    comparison, (json_file, markdown, page, *_) = compare([run])
    lines = markdown.read_text().splitlines()
    (heads,) = (line for line in lines if line.startswith("| strategy | n | donors"))
    assert heads == "| strategy | n | donors | right | follows | keeps | neither | carries |"
    (tagged,) = (line for line in lines if line.startswith("| sft-tag | 19 | 20 | 1.000"))
    assert tagged.endswith(
        "| 1.000 [0.84, 1.00] of 20 | 0.789 [0.57, 0.91] | 0.211 [0.09, 0.43] | 0.000 [0.00, 0.17] "
        "| 0.500 [0.25, 0.75] of 12 |"
    )
    (test,) = (line for line in lines if line.startswith("| follows | sft - sft-tag"))
    exact = 2 * 0.5**11
    assert "| 19 | -0.579 [" in test
    assert test.endswith(f"| 0 / 11 | {2 * exact:.4f} \\* |"), (
        "McNemar's test, for two tests; carries has one side only"
    )
    assert "- sft: questions that were passed over: no_donor: 3." in lines
    unjudged = "answers that could not be judged, by the reasoning before them"
    assert f"- sft: {unjudged}: donor: 1." in lines
    assert f"- sft-tag: {unjudged}: donor: 1, generated: 8." in lines
    assert 'href="#swapped"' in page.read_text()
    assert "0.789 [0.57, 0.91]" in page.read_text()
    with console.capture() as capture:
        show_comparison(comparison, [])
    shown = capture.get()
    assert "differences in what answers follow" in shown
    assert "0.84-1.00  0.57-0.91  0.09-0.43  0.00-0.17  0.25-0.75" in shown, "it fits into 80 columns"
    assert re.search(r"^ +of 20 +of 12 *$", shown, re.MULTILINE)
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
    assert comparison.to_json(Path()).keys() == {"rows", "paired_tests", "winners_by_alpha"}
    row = comparison.rows[0].to_json(Path())
    assert row == {name: value for name, value in before.to_json(Path()).items() if name != "swapped_reasoning"}


def test_a_strategy_of_which_every_question_was_left_out_has_a_row_with_the_reason(run):
    nothing = SwappedReasoning("0123", (), {"not_reproduced": 7})
    SWAPPED.write(run / "evaluation" / "sft" / "swapped_reasoning.json", nothing)
    lines = to_markdown(read_comparison([run])).splitlines()
    assert f"| sft | 0 | 0 |{f' {UNKNOWN} |' * 5}" in lines
    assert "- sft: questions that were passed over: not_reproduced: 7." in lines
    assert not any("sft - sft-tag" in line and "follows" in line for line in lines)


def test_a_measurement_that_was_removed_counts_as_none(run):
    (run / "evaluation" / "sft" / "swapped_reasoning.json").unlink()
    assert list(read_comparison([run]).swapped) == ["sft-tag"]


def test_the_terminal_lists_tests_with_the_baseline_and_with_the_start_alone(tmp_path):
    names = ("sft", "sft-tag", "key-tag", "sftkey-tag")
    run = write_run(tmp_path / "study", dict.fromkeys(names, 12))
    entries = json.loads((run / "strategies.json").read_text())
    entries["key-tag"]["stages"][0]["path"] = "stages/key-2"
    (run / "strategies.json").write_text(json.dumps(entries))
    for number, name in enumerate(names):
        outcomes = "f" * (3 + number) + "k" * 17
        evaluation = run / "evaluation" / name
        record_evaluation(RunDir(run), name, evaluation, write_swaps(evaluation, outcomes))
    comparison = read_comparison([run])
    _, all_tests = swap_tables(comparison)
    _, few = swap_tables(comparison, all_pairs=False)
    left_out = {"sft-tag - key-tag", "key-tag - sftkey-tag"}
    assert {cells[1] for cells in all_tests.rows} - {cells[1] for cells in few.rows} == left_out
    assert "only first / only second" in all_tests.heads
    assert few.notes[-1] == "The page has the tests of all pairs"


def shares_of(follows: int, carried: str = "") -> SwapShares:
    return SwapShares.of(swapped("f" * follows + "k" * (20 - follows), carried))


def results_of(tmp_path, **shared: tuple[str | None, ...]) -> dict[str, dict[int, Result]]:
    """A seed of strategies by who trains each of their stages; the first one's answers follow in 4 of 20 questions, the
    next one's in 5, and so on."""
    _, (json_file, *_) = compare([write_run(tmp_path / "run", {"sft": 12})])
    (row,) = COMPARISON.read(json_file).rows
    return {
        name.replace("_", "-"): {
            1: replace(
                row.result,
                stages=tuple(replace(row.stages[0], shared_with=of) for of in trainers),
                swapped_reasoning=shares_of(4 + number),
            )
        }
        for number, (name, trainers) in enumerate(shared.items())
    }


@pytest.mark.parametrize(
    ("shared", "wanted"),
    [
        ({"sft": (None,), "tag": (None,), "tag_key": ("tag", None)}, {"tag-key": "+0.050"}),
        ({"sft": (None,), "tag_key": (None, None), "tag": ("tag-key",)}, {"tag-key": "-0.050"}),
        ({"sft": (None,), "tag_key": (None, None), "tag_other": ("tag-key", None)}, {}),
        (
            {"sft": (None,), "tag_key": (None, None), "tag_other": ("tag-key", None), "tag": ("tag-key",)},
            {"tag-key": "-0.100", "tag-other": "-0.050"},
        ),
        ({"sft": (None,), "long": ("sft", None, None)}, {"long": "+0.050"}),
    ],
)
def test_a_start_has_one_stage_whichever_strategy_trains_it(tmp_path, shared, wanted):
    lines = swapped_over_seeds(results_of(tmp_path, **shared))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")][2:]
    assert {row[0]: row[-2] for row in rows if row[-2]} == wanted


def test_over_seeds_a_share_of_other_answers_says_how_many(tmp_path):
    results = results_of(tmp_path, sft=(None,), tag=(None,))
    (result,) = results["tag"].values()
    for seed, judged in ((1, 12), (2, 15)):
        carried = "f" * 6 + "k" * (judged - 6) + "u" * (20 - judged)
        results["tag"][seed] = replace(result, swapped_reasoning=shares_of(5, carried))
    results["sft"][2] = replace(result, swapped_reasoning=SwapShares.of(SwappedReasoning("0", (), {"too_long": 7})))
    results["none"] = {1: replace(result, swapped_reasoning=SwapShares.of(SwappedReasoning("0", ())))}
    lines = swapped_over_seeds(results)
    (sft, tag, nothing) = lines[4:7]
    assert sft.endswith("| 1 x 20 |")
    assert tag.endswith("| 2 x 20 |")
    assert " of 2 x 12 to 15 |" in tag
    assert nothing == "| none | - | - | - | - | - |  |  | - |".replace("-", UNKNOWN)


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
            own = {"stages": (replace(row.stages[0], shared_with=None),)} if row.strategy == "sft" else {}
            by_strategy.setdefault(row.strategy, {})[seed] = replace(row.result, **own)
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
