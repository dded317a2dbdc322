"""The diagnosis of a run's files: of the model that a strategy handed on, whatever its stages did after it."""

import json

import pytest

from sftkey_dist.pipeline.compare import diagnose_run
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import (
    METRICS,
    OBSERVATIONS,
    SUMMARY,
    GuardScores,
    GuardSummary,
    Observation,
)
from tests.finished_run import write_run
from tests.records import nll, stage_summary, step_metrics

ANSWER_ALONE = {"weights": [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]}
SCORES = {0: 0.6, 2: 0.7, 4: 0.5}


@pytest.fixture
def diagnosed(tmp_path):
    """Kinds of findings by strategy, of a run whose second stage unlearns the reasoning in its last two steps."""
    run = write_run(tmp_path / "run", {"sft-tag": 10, "sftkey-tag": 10})
    key = StageDir(run / "stages/key-2")
    rising = [step_metrics(s, segments={"answer": nll(2.0), "reasoning": nll(r)}) for s, r in enumerate([1, 1, 1, 3])]
    METRICS.write(key.metrics, rising)

    def diagnose(guard):
        kept = [GuardScores(n=9, accuracy=0.5, format=1.0 - s / 8, score=SCORES[s]) for s in SCORES]
        scored = [Observation(step, None, of) for step, of in zip(SCORES, kept, strict=True)]
        OBSERVATIONS.write(key.validation, scored if guard else [])
        SUMMARY.write(key.summary, stage_summary(inputs=ANSWER_ALONE, guard=guard))
        findings, file = diagnose_run(run)
        assert json.loads(file.read_text()).keys() == findings.keys()
        return {strategy: {finding.kind: finding for finding in found} for strategy, found in findings.items()}

    return diagnose


def kept_after(step):
    return GuardSummary(kept_step=step, kept_score=SCORES[step], first_score=0.6, last_score=0.5, evaluations=3)


def test_a_stage_is_judged_by_the_model_that_it_handed_on(diagnosed):
    without = diagnosed(None)["sftkey-tag"]
    assert "use validation.guard" in without["last_stage_drifts"].remedy
    assert "last_stage_drifts" not in diagnosed(kept_after(2))["sftkey-tag"], "the reasoning got worse after it"
    last = diagnosed(kept_after(4))["sftkey-tag"]
    assert {"last_stage_drifts", "last_stage_breaks_format"} <= last.keys()
    assert "validation.guard.keep=best" in last["last_stage_breaks_format"].remedy


def test_a_strategy_whose_last_stage_gained_nothing_is_diagnosed_as_the_one_before(diagnosed):
    found = diagnosed(kept_after(0))
    gained = found["sftkey-tag"].pop("stage_gained_nothing")
    assert "before stage key, whose guard kept the model that the stage began with" in gained.sentence
    assert found["sftkey-tag"].keys() == found["sft-tag"].keys()
    wrong = found["sftkey-tag"].pop("right_structure_wrong_answer")
    assert "sftkey-tag" not in wrong.remedy
    assert "sftkey-tag" in found["sft-tag"].pop("right_structure_wrong_answer").remedy
    assert found["sftkey-tag"] == found["sft-tag"]
