"""Losses of segments over the stages and seeds of a study."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sftkey_dist.report.loss_curve import LossCurve, read_loss_curve
from sftkey_dist.report.study.evidence import Evidence, Result, StageResult, StudyFacts, VariantFacts
from sftkey_dist.report.study.losses_over_seeds import losses_section, measured_losses, plot_losses
from sftkey_dist.report.study.plots import MAX_BANDS, Band
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS, SegmentMetrics
from tests.records import step_metrics


def written(tmp_path, *records) -> StageDir:
    stage = StageDir(tmp_path)
    METRICS.write(stage.metrics, records)
    return stage


def test_a_curve_has_means_over_tokens_of_equal_parts(tmp_path):
    random = np.random.default_rng(0)
    nll, tokens = random.uniform(0, 3, 23), random.integers(1, 9, 23)
    records = [
        step_metrics(
            step,
            segments={
                "prompt": SegmentMetrics(1.0, 0.5, 7),
                "reasoning.open": SegmentMetrics(1.0, 0.5, 3),
                "end_of_turn": SegmentMetrics(1.0, 0.5, 1),
                "answer": SegmentMetrics(nll[step], 0.5, int(tokens[step])),
            },
        )
        for step in range(23)
    ]
    curve = read_loss_curve(written(tmp_path, *records))
    assert curve is not None
    assert list(curve.nll) == ["answer"]
    parts = [list(part) for part in np.array_split(np.arange(23), 10)]
    expected = [float((nll[part] * tokens[part]).sum() / tokens[part].sum()) for part in parts]
    assert curve.nll["answer"] == pytest.approx(expected, rel=5e-4)
    assert curve.steps == tuple((part[0] + part[-1]) / 2 for part in parts)


def test_steps_and_parts_that_measured_nothing_are_left_out(tmp_path):
    answer, reasoning = SegmentMetrics(2.0, 0.5, 1), SegmentMetrics(1.0, 0.5, 4)
    stage = written(
        tmp_path,
        step_metrics(0),
        step_metrics(1, segments={"answer": answer, "reasoning": reasoning}),
        step_metrics(2, segments={"reasoning": reasoning}),
    )
    curve = read_loss_curve(stage)
    assert curve is not None
    assert curve.steps == (1.0, 2.0)
    assert curve.nll["reasoning"] == (1.0, 1.0)
    assert curve.nll["answer"][0] == 2.0
    assert math.isnan(curve.nll["answer"][1])
    assert read_loss_curve(written(tmp_path, step_metrics(0))) is None


FULL = StageResult("full", 10, 1.0, 900, 320, losses=LossCurve((2.0, 7.0), {"answer": (2.0, 1.0), "reasoning": (3, 2)}))
KEY = StageResult("key", 4, 1.0, 450, 5, losses=LossCurve((1.5,), {"answer": (0.5,), "reasoning": (2.5,)}))


def result(*stages: StageResult) -> Result:
    return Result(5, 0.6, 1.0, 0.7, 0.7, "memos", {}, stages)


def study(results: dict[str, dict[int, Result]]) -> Evidence:
    variants = {"main": VariantFacts("", (1, 2))}
    facts = StudyFacts("Losses", "", "sftkey run", (1, 2), variants, ())
    return Evidence("losses", facts, {"main": results}, {}, ())


def lowered(stage: StageResult, by: float) -> StageResult:
    assert stage.losses is not None
    nll = {name: tuple(value - by for value in values) for name, values in stage.losses.nll.items()}
    return replace(stage, losses=replace(stage.losses, nll=nll))


def test_stages_are_joined_and_seeds_are_averaged():
    by_seed = {1: result(FULL, KEY), 2: result(lowered(FULL, 0.2), lowered(KEY, 0.2))}
    losses = measured_losses(study({"sftkey-tag": by_seed}))
    assert list(losses.bands) == ["answer", "reasoning"]
    assert losses.left_out == []
    band = losses.bands["answer"]["main"]["sftkey-tag"]
    assert band.steps.tolist() == [2.0, 7.0, 11.5]
    assert band.mean == pytest.approx([1.9, 0.9, 0.4])
    assert band.lowest == pytest.approx([1.8, 0.8, 0.3])
    assert band.highest == pytest.approx([2.0, 1.0, 0.5])


def test_the_figure_has_a_panel_for_each_segment_and_the_page_says_what_it_shows(tmp_path):
    losses = measured_losses(study({"sft-tag": {1: result(FULL)}, "sftkey-tag": {1: result(FULL, KEY)}}))
    figure = plot_losses(losses, tmp_path / "losses.svg")
    assert figure is not None
    text = figure.read_text()
    for shown in ("nll of answer", "nll of reasoning", "optimizer step, stages joined", "main", "sftkey-tag"):
        assert f"<!-- {shown}" in text
    lines = losses_section(losses, figure)
    assert lines[0] == f"![loss of each segment]({figure.as_posix()})"
    assert "only the seeds" not in lines[2]


def test_seeds_without_recorded_losses_and_with_other_steps_are_counted(tmp_path):
    older = result(FULL, replace(KEY, losses=None))
    longer = result(FULL, replace(KEY, steps=5, losses=LossCurve((2.0,), {"answer": (0.5,), "reasoning": (2.5,)})))
    seeds = {1: result(FULL, KEY), 2: older, 3: longer}
    losses = measured_losses(study({"sftkey-tag": seeds, "sft-tag": {1: result(FULL)}}))
    assert losses.bands["answer"]["main"]["sftkey-tag"].mean == pytest.approx([2.0, 1.0, 0.5])
    assert losses.left_out == ["main/sftkey-tag (1 of 3 seeds)"]
    assert "the same steps: main/sftkey-tag (1 of 3 seeds)." in losses_section(losses, tmp_path / "losses.svg")[2]


def test_runs_without_recorded_losses_and_too_many_strategies_have_no_figure(tmp_path):
    older = result(FULL, replace(KEY, losses=None))
    stale = tmp_path / "losses.svg"
    stale.touch()
    losses = measured_losses(study({"sftkey-tag": {1: older}}))
    assert plot_losses(losses, stale) is None
    assert not stale.exists()
    assert losses_section(losses, None) == []
    many = {f"strategy-{number}": {1: result(FULL)} for number in range(MAX_BANDS + 1)}
    assert not measured_losses(study(many)).bands


def test_a_band_goes_from_the_lowest_to_the_highest_seed():
    band = Band.of([1, 2], [[1.0, 5.0], [3.0, 1.0]])
    assert (band.mean.tolist(), band.lowest.tolist(), band.highest.tolist()) == ([2.0, 3.0], [1.0, 1.0], [3.0, 5.0])
