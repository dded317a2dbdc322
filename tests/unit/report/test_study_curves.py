"""Curves of a study: their points, where they stand, and what is shown of them."""

from dataclasses import replace

import numpy as np
import pytest

from sftkey_dist.config.study import CurvesConfig
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.crossed import Outcomes
from sftkey_dist.report.study.curves import curves_section, measured_curves, plot_measured
from sftkey_dist.report.study.evidence import Evidence, Result, StageResult, StudyFacts, VariantFacts

SEEDS = (1, 2, 3)
CORRECT = {"short/first": "11110", "short/second": "10010", "long/first": "00110", "long/second": "11110"}
FULL, KEY = StageResult("full", 10, 1.0, 900, 320), StageResult("key", 5, 1.0, 450, 5)


def result(name: str, seed: int) -> Result:
    correct = CORRECT[name][seed:] + CORRECT[name][:seed] if name == "short/second" else CORRECT[name]
    share = correct.count("1") / len(correct)
    in_format = 1.0 - 0.1 * seed if name.endswith("first") else 1.0
    return Result(5, share, in_format, share, 1.0, "memos", {}, (FULL, KEY), outcomes=Outcomes("q", correct))


def study(**points) -> Evidence:
    config = {"question": "Does <length> matter?", "x_label": "share", "series": points}
    facts = StudyFacts(
        title="Lengths",
        about="",
        command="sftkey run",
        seeds=SEEDS,
        variants={name: VariantFacts("", SEEDS) for name in ("short", "long", "missing")},
        contrasts=(),
        curves=(CurvesConfig.model_validate(config),),
    )
    results: dict[str, dict[str, dict[int, Result]]] = {"short": {}, "long": {}, "missing": {}}
    for name in CORRECT:
        variant, _, strategy = name.partition("/")
        results[variant][strategy] = {seed: result(name, seed) for seed in SEEDS}
    return Evidence("lengths", facts, results, {}, tuple(f"missing/seed-{seed}" for seed in SEEDS))


def point(variant: str, x: float | str) -> dict[str, object]:
    return {"x": x, "first": f"{variant}/first", "second": f"{variant}/second"}


def test_points_are_differences_with_intervals_at_their_place(tmp_path):
    (curves,) = measured_curves(study(gain=[point("short", 0.5), point("long", "long/first")]))
    short, long = curves.series["gain"]
    assert short.accuracy.value == pytest.approx(0.4)
    assert short.accuracy.interval[0] < 0.4 < short.accuracy.interval[1]
    assert long.accuracy.value == pytest.approx(-0.4)
    assert long.format.mean.value == pytest.approx(-np.mean([0.1, 0.2, 0.3]))
    assert short.x == 0.5
    assert long.x == pytest.approx((5 / 5) / (320 / 10)), "loss tokens of a step, last stage by first"
    text = "\n".join(curves_section(curves, tmp_path / "curves.svg"))
    assert "### Does &lt;length> matter?" in text
    assert "| gain | 0.0312 | long/first | long/second |" in text
    assert plot_measured(curves, tmp_path / "curves.svg").read_text().count("difference in") == 2


def test_points_of_missing_runs_are_named_and_a_figure_without_points_is_not_drawn(tmp_path):
    (curves,) = measured_curves(study(gain=[point("missing", 1), point("short", 2), point("short", "missing/first")]))
    assert [found.x for found in curves.series["gain"]] == [2]
    text = "\n".join(curves_section(curves, tmp_path / "curves.svg"))
    assert "Not measured: missing/first - missing/second (no run of missing/first, missing/second is done); " in text
    assert "short/first - short/second (no run of missing/first is done)." in text
    (empty,) = measured_curves(study(gain=[point("missing", 1)]))
    assert not empty.has_points
    assert curves_section(empty, None)[0] == "### Does &lt;length> matter?"


def test_a_single_seed_is_no_point():
    alone = study(gain=[point("short", 1)])
    results = {name: {1: of[1]} for name, of in alone.results["short"].items()}
    (curves,) = measured_curves(replace(alone, results=alone.results | {"short": results}))
    assert not curves.has_points
    assert curves.left_out[0].endswith("(it takes two seeds with the recorded outcomes of the same questions)")


def test_a_strategy_that_does_not_exist_is_named_with_those_that_do():
    wrong = {"x": 1, "first": "short/third", "second": "short/first"}
    with pytest.raises(
        DataError, match=r"lengths: curves: short/third: variant short has the strategies first, second"
    ):
        measured_curves(study(gain=[wrong]))
