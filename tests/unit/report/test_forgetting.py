"""What was forgotten, in all forms of a comparison."""

import json
import re
from pathlib import Path

import pytest

from sftkey_dist.cli.output import show_comparison
from sftkey_dist.console import console
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.markdown import to_markdown
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.study.evidence import COMPARISON, capability_differences
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.capabilities import (
    CAPABILITY,
    CAPABILITY_FILES,
    CapabilityFiles,
    CapabilityMetric,
    CapabilityResult,
    result_file,
)
from sftkey_dist.run_dir.artifacts.training import (
    INTERPOLATIONS,
    OBSERVATIONS,
    SUMMARY,
    GuardScores,
    GuardSummary,
    HeldOutMetrics,
    Interpolation,
    Observation,
)
from tests.finished_run import write_run
from tests.records import nll, stage_summary

NUM_DOCUMENTS = 40


def result(right: int, model: str) -> CapabilityResult:
    values = {f"memo {number}": float(number < right) for number in range(NUM_DOCUMENTS)}
    metric = CapabilityMetric("acc", right / NUM_DOCUMENTS, 0.05, True, values)
    return CapabilityResult("memo <b>", f"{model}0123456789ab", "0.4.13", {"memo": "1"}, NUM_DOCUMENTS, (metric,))


def put(run: RunDir, model: str, right: int) -> dict[str, str]:
    found = result(right, model)
    file = result_file(run, found.task, found.digest)
    CAPABILITY.write(file, found)
    return {found.task: str(file.relative_to(run.path))}


@pytest.fixture
def run(tmp_path) -> Path:
    """A first stage that forgets 2 of 40 documents, and a second one after which 12 are forgotten."""
    folder = write_run(tmp_path / "study", {"sft-tag": 10, "sftkey-tag": 18})
    run = RunDir(folder)
    strategies = {"sft-tag": put(run, "a", 28), "sftkey-tag": put(run, "b", 18)}
    CAPABILITY_FILES.write(run.capabilities, CapabilityFiles(put(run, "c", 30), strategies))
    observe(StageDir(folder / "stages/key-2"))
    return folder


def held_out(reasoning: float) -> HeldOutMetrics:
    return HeldOutMetrics(1.0, {"reasoning": nll(reasoning), "answer": nll(0.1), "reasoning.open": nll(0.0)})


def guard(form: float) -> GuardScores:
    return GuardScores(n=4, accuracy=0.5, format=form, score=0.5)


def observe(stage: StageDir) -> None:
    """Of three measurements, the guard has kept the second model."""
    measured = [(0, 0.5, 1.0), (2, 0.75, 0.75), (4, 2.0, 0.0)]
    OBSERVATIONS.write(
        stage.validation, [Observation(step, held_out(value), guard(form)) for step, value, form in measured]
    )
    kept = GuardSummary(kept_step=2, kept_score=0.5, first_score=0.5, last_score=0.0, evaluations=3)
    SUMMARY.write(stage.summary, stage_summary(guard=kept))


def test_every_form_shows_what_was_lost_beyond_chance(run):
    comparison, (json_file, markdown, page, *_) = compare([run])
    shown = [re.sub(r" {2,}", " ", line) for line in markdown.read_text().splitlines() if "memo &lt;b> acc" in line]
    assert shown[0].startswith("| sft-tag | memo &lt;b> acc | 40 | 0.750 | 0.700 | -0.050 [")
    assert shown[0].endswith("| 0.5000 |"), "McNemar's test of 0 against 2 documents; the larger p-value stays"
    assert shown[1].startswith("| sftkey-tag | memo &lt;b> acc | 40 | 0.750 | 0.450 | -0.300 [")
    assert shown[1].endswith(f"| {2 * 2 * 0.5**12:.4f} \\* |"), "0 against 12, for two tests"
    lost = "worse by more than chance: sftkey-tag on memo &lt;b> acc by 0.300."
    assert lost in markdown.read_text()
    assert lost.replace(">", "&gt;") in page.read_text()
    assert "<b>" not in page.read_text()
    assert 'href="#forgetting"' in page.read_text()
    with console.capture() as capture:
        show_comparison(comparison, [])
    assert "sftkey-tag on memo <b> acc by 0.300" in capture.get()
    (facts,) = read_facts([run])
    cards = [model_card(row, facts) for row in comparison.rows]
    assert ["by more than chance: sftkey-tag" in card for card in cards] == [False, True]
    assert all("## Beside the base model" in card for card in cards)
    rows = json.loads(json_file.read_text())["rows"]
    assert [row["capabilities"][0]["difference"] for row in rows] == [pytest.approx(-0.05), pytest.approx(-0.3)]
    read = COMPARISON.read(json_file).rows
    assert capability_differences({3: read[1].result}) == {"memo <b> acc": {3: pytest.approx(-0.3)}}


def test_beside_it_is_what_the_last_stage_changed_in_the_model_that_it_hands_on(run):
    first, last = (row.forgetting.drift for row in read_comparison([run]).rows)
    assert first == ()
    assert [(drift.measure, drift.before, drift.after) for drift in last] == [
        ("reasoning nll", 0.5, 0.75),
        ("format", 1.0, 0.75),
    ]
    stage = StageDir(run / "stages/key-2")
    kept = GuardSummary(2, 0.5, 0.5, 0.0, 3, kept_part=0.5)
    SUMMARY.write(stage.summary, stage_summary(guard=kept))
    INTERPOLATIONS.write(stage.interpolations, [Interpolation(0.5, held_out(0.6), guard(0.9))])
    assert [drift.after for drift in read_comparison([run]).rows[1].forgetting.drift] == [0.6, 0.9]
    OBSERVATIONS.write(stage.validation, [])
    SUMMARY.write(stage.summary, stage_summary())
    assert read_comparison([run]).rows[1].forgetting.drift == ()


def test_nothing_is_shown_where_nothing_was_measured(run):
    RunDir(run).capabilities.unlink()
    comparison = read_comparison([run])
    assert comparison.forgetting == {}
    assert "Holm" not in to_markdown(comparison)
    assert "capabilities" not in comparison.rows[0].to_json(Path())


def test_equal_models_have_forgotten_nothing_that_can_be_seen(run):
    put(RunDir(run), "b", 30)
    put(RunDir(run), "a", 30)
    assert "No model is worse than the base model by more than chance" in to_markdown(read_comparison([run]))
