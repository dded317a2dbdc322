"""What must be known of the compared models: which are the same, and which were trained on different rows."""

import json
from pathlib import Path

import pytest

from sftkey_dist.cli.output import show_comparison
from sftkey_dist.console import console
from sftkey_dist.digests import FileNote
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.cautions import cautions
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.same_model import same_models
from sftkey_dist.report.study.evidence import COMPARISON
from sftkey_dist.report.study.kept_starts import kept_starts
from sftkey_dist.run_dir.artifacts.training import SUMMARY, GuardSummary, Rounding
from tests.finished_run import write_run
from tests.records import stage_summary

KEPT_START = GuardSummary(kept_step=0, kept_score=0.95, first_score=0.95, last_score=0.9, evaluations=5)
KEPT_SECOND = GuardSummary(kept_step=2, kept_score=0.97, first_score=0.95, last_score=0.9, evaluations=5)
REASON = (
    "the guard of stage key kept the model that the stage began with, because training did not raise its score: "
    "held-out score 0.950 at the start, 0.950 kept, 0.900 at the end"
)


def files(weights):
    """The notes of a model folder whose tokenizer is the same whatever its weights are."""
    digests = {"model.safetensors": weights * 64, "tokenizer.json": "f" * 64}
    return {"model_files": {name: FileNote(bytes=10, sha256=digest) for name, digest in digests.items()}}


def finish(run, stage, **changes):
    SUMMARY.write(run / "stages" / stage / "stage.json", stage_summary(**changes))


def shown(comparison):
    with console.capture() as capture:
        show_comparison(comparison, [])
    return capture.get()


@pytest.fixture
def run(tmp_path):
    """``sftkey-tag`` shares its first stage with ``sft-tag``; ``sft`` ends with that stage, too."""
    return write_run(tmp_path / "run", {"sft-tag": 10, "sftkey-tag": 10})


def test_a_stage_whose_guard_kept_its_start_is_named_wherever_its_strategy_is_compared(run):
    finish(run, "full-1", **files("a"))
    finish(run, "key-2", guard=KEPT_START, **files("a"))
    comparison, written = compare([run])
    said = f"sftkey-tag has the same weights as sft-tag: {REASON}."
    assert cautions(comparison) == [said]
    assert said in written[1].read_text()
    assert f'<p class="caution">{said}</p>' in written[2].read_text()
    assert said in shown(comparison)
    (facts,) = read_facts([run])
    same = same_models(comparison)
    cards = [model_card(row, facts, same=same.get(row.strategy, "")) for row in comparison.rows]
    assert [said in card for card in cards] == [False, True]
    assert [f"T{REASON[1:]}." in card for card in cards] == [False, True]
    stages = json.loads(written[0].read_text())["rows"][1]["stages"]
    assert stages[0]["weights"] == stages[1]["weights"]
    assert (stages[1]["guard"]["kept_step"], "guard" in stages[0]) == (0, False)


def test_a_study_counts_the_seeds_in_which_a_guard_kept_the_start(run):
    results = {}
    for seed, guard in enumerate((KEPT_START, KEPT_SECOND, KEPT_START, None)):
        finish(run, "key-2", guard=guard)
        rows = COMPARISON.of("", read_comparison([run]).to_json(Path())).rows
        results[seed] = rows[1].result
    said = "- sftkey-tag: in 2 of 4 seeds the guard kept the model that stage key began with."
    assert kept_starts({"sft-tag": {0: rows[0].result}, "sftkey-tag": results}) == [said, ""]
    assert kept_starts({"sft-tag": {0: rows[0].result}}) == []


def test_a_stage_that_changed_the_model_is_not_called_the_same(run):
    finish(run, "full-1", **files("a"))
    finish(run, "key-2", guard=KEPT_SECOND, **files("b"))
    comparison, written = compare([run])
    assert not cautions(comparison)
    assert "same weights" not in written[1].read_text() + written[2].read_text() + shown(comparison)
    (facts,) = read_facts([run])
    card = model_card(comparison.rows[1], facts)
    assert "The guard of stage key kept the model after step 2 of 4: held-out score 0.950 at the start, 0.970" in card


def test_weights_that_are_equal_without_a_guard_have_another_reason(run):
    lost = Rounding(precision="bfloat16", num_weights=100, num_changed=0, surviving_share=0.0)
    finish(run, "full-1", **files("a"))
    finish(run, "key-2", rounding=lost, **files("a"))
    assert cautions(read_comparison([run])) == [
        "sftkey-tag has the same weights as sft-tag: stage key changed no stored weight."
    ]
    finish(run, "key-2", **files("a"))
    assert cautions(read_comparison([run])) == [
        "sftkey-tag has the same weights as sft-tag: their exported files are equal."
    ]


def test_a_strategy_that_is_compared_alone_is_named_by_the_stage_before(tmp_path):
    run = write_run(tmp_path / "run", {"sftkey-tag": 10})
    finish(run, "key-2", guard=KEPT_START)
    assert cautions(read_comparison([run])) == [f"sftkey-tag has the same weights as its stage full: {REASON}."]
    finish(run, "full-1", guard=KEPT_START)
    assert cautions(read_comparison([run])) == [f"sftkey-tag has the same weights as the base model: {REASON}."]


def test_runs_without_digests_claim_nothing(run):
    assert not cautions(read_comparison([run]))
    assert "weights" not in json.dumps(read_comparison([run]).to_json(Path()))


def report(run, tagged, untagged, reason="too_long"):
    """The data report of 351 rows, of which so many are kept in each form; ``sft`` trains the untagged one."""

    def a_set(form, kept):
        dropped = [{"reason": reason, "count": 350 - kept, "examples": []}, {"reason": "empty_field", "count": 1}]
        return {"summary": "", "name": f"train ({form})", "rows": 351, "kept": kept, "dropped": dropped}

    content = {"sets": [a_set("tagged", tagged), a_set("untagged", untagged)]}
    (run / "data_report.json").write_text(json.dumps(content))
    entries = json.loads((run / "strategies.json").read_text())
    entries["sft"]["form"] = "untagged"
    (run / "strategies.json").write_text(json.dumps(entries))


def test_strategies_that_were_trained_on_different_rows_are_named_with_the_reason(tmp_path):
    run = write_run(tmp_path / "run", {"sft": 20, "sft-tag": 7, "sftkey-tag": 8})
    report(run, tagged=129, untagged=338)
    comparison, written = compare([run])
    said = (
        "Strategies were trained on different rows: sft on 338 rows; sft-tag and sftkey-tag "
        "on 129 rows (221 dropped as too_long). Their differences may come from the rows; raise "
        "data.max_length_tokens to compare them on the same ones."
    )
    assert cautions(comparison) == [said]
    assert said in written[2].read_text()
    assert said in written[1].read_text()
    assert said in shown(comparison)
    assert [row["training_rows"] for row in json.loads(written[0].read_text())["rows"]] == [338, 129, 129]
    report(run, tagged=129, untagged=338, reason="delimiter_in_text")
    assert "mend the dropped rows, which the data report names" in cautions(read_comparison([run]))[0]


@pytest.mark.parametrize(("tagged", "is_noted"), [(337, False), (322, False), (320, True)])
def test_a_few_missing_rows_need_no_word(tmp_path, tagged, is_noted):
    run = write_run(tmp_path / "run", {"sft": 20, "sft-tag": 7})
    report(run, tagged=tagged, untagged=338)
    assert bool(cautions(read_comparison([run]))) == is_noted


def test_the_terminal_says_which_differences_a_test_set_is_too_small_for(tmp_path):
    close = read_comparison([write_run(tmp_path / "close", {"sft": 10, "sft-tag": 12})])
    assert "With 20 questions, a difference in accuracy below 0.35 is found less than 80 % of the time." in shown(close)
    clear = read_comparison([write_run(tmp_path / "clear", {"sft": 1, "sft-tag": 20})])
    assert "With 20 questions" not in shown(clear)


def test_samples_are_said_to_be_samples_and_what_they_come_to_together(run):
    scores = run / "evaluation" / "sft-tag" / "scores.json"
    several = {"majority_accuracy": 0.55, "pass_at_k": {"1": 0.5, "4": 0.7}}
    scores.write_text(json.dumps(json.loads(scores.read_text()) | several))
    comparison = read_comparison([run])
    said = (
        "sft-tag: n counts sampled outputs, several for each question; the majority vote is right in 0.550 of the "
        "questions, at least one of 4 in 0.700 (pass@k)."
    )
    alone = "These outputs are samples, those of the other rows are not: compare them with care."
    assert cautions(comparison)[:2] == [said, alone]
    assert said in " ".join(shown(comparison).split())
