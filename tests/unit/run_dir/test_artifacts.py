"""Files of a run: what is written is read, and what is damaged or leads elsewhere is named, through every reader."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.segmenting import model as of_segmenting
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.judge.memory import JudgeMemory
from sftkey_dist.evaluation.judging import is_scored
from sftkey_dist.files import to_json
from sftkey_dist.pipeline.compare import compare, diagnose_run
from sftkey_dist.pipeline.records import forget_all_but
from sftkey_dist.pipeline.study.runs import _written_date
from sftkey_dist.pipeline.tracking.sync import sync
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.study import evidence as of_studies
from sftkey_dist.report.study.evidence import Evidence
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts import capabilities as of_capabilities
from sftkey_dist.run_dir.artifacts import evaluation as of_evaluation
from sftkey_dist.run_dir.artifacts import run as of_run
from sftkey_dist.run_dir.artifacts import swapped as of_swapped
from sftkey_dist.run_dir.artifacts import training as of_training
from sftkey_dist.run_dir.artifacts import tuning as of_tuning
from sftkey_dist.run_dir.artifacts import underway as of_underway
from sftkey_dist.run_dir.artifacts.kinds import FORMAT_VERSION, FileKind, Journal, JsonFile
from sftkey_dist.tracking.mlflow_store import _read_run_ids
from tests.finished_run import write_run

DAMAGES = {"empty": b"", "NULs": b"\0" * 512, "cut off": b'{"steps": 4, "tok'}


NLL = {"nll": 0.5, "token_accuracy": None, "tokens": 3}
STEP = {
    "step": 0,
    "epoch": 0,
    "loss": 1e-07,
    "learning_rate": 0.001,
    "grad_norm": None,
    "tokens": 9,
    "loss_tokens": 3,
    "balance": {"tokens": 1.0, "cost": 1.0, "loss_weight": 1.5, "density": 0.5, "straggler_loss": 0.0},
    "segments": {"answer": NLL},
}
TIMING = {
    "step": 0,
    "seconds": 1.0,
    "tokens_per_second": 9.5,
    "loss_tokens_per_second": 3.0,
    "model_tflops_per_second": 1e-05,
    "phase_seconds": {"forward": 0.25},
    "world_size": 2,
    "peak_memory_gib": 0.5,
}
TIMING_WITH_ALL = {
    "step": 1,
    "seconds": 1.0,
    "tokens_per_second": 9.5,
    "loss_tokens_per_second": 3.0,
    "model_tflops_per_second": 1e-05,
    "mfu": 0.25,
    "collective_seconds": 0.5,
    "watched_seconds": 0.75,
    "watch_cost_seconds": 0.125,
    "phase_seconds": {},
    "world_size": 2,
    "peak_memory_gib": 0.5,
}
GUARD = {"n": 9, "accuracy": None, "format": 1.0, "unjudged": 9, "truncated": 1, "score": 0.3}
YIELD = {
    "rows": 3,
    "accepted_rows": 2,
    "otherwise": "reference",
    "samples": 6,
    "outcomes": {"accepted": 4, "wrong_answer": 2},
    "tokens": 60,
}
ROUNDING = {"precision": "bfloat16", "num_weights": 9, "num_changed": 1, "surviving_share": None}
SCORES = {
    "n": 2,
    "accuracy": None,
    "accuracy_bounds": [0.0, 1.0],
    "format": 1.0,
    "parser_success": 1.0,
    "score": 0.5,
    "strict_score": None,
    "alpha": 0.7,
    "unjudged": 2,
    "unjudged_reasons": {"refused": 2},
    "truncated": 0,
    "violations": {},
    "accuracy_interval": [0.0, 1.0],
    "format_interval": [0.5, 1.0],
    "score_interval": [0.0, 1.0],
    "fields": {"answer": None},
    "pass_at_k": {"1": 0.5},
    "majority_accuracy": None,
    "explanation_rating": None,
    "unjudgeable": {},
}
CHECK = {"verdict": "incorrect", "reason": "", "certain": True, "unjudgeable": ""}
JUDGED = {"verdict": "correct", "reason": "\ud800", "unjudgeable": "", "votes": {"judge": "correct"}, "is_final": True}
RECORD = {
    "id": "q1",
    "data_set": "memos/test",
    "sample": 0,
    "prompt": "Approve?",
    "history": [{"role": "user", "content": "Hello"}],
    "output": "half a pair: \ud800",
    "reference": {"answer": "yes"},
    "answer": {"answer": "yeah"},
    "answer_source": {"answer": "strict"},
    "segments": {"answer": "yeah"},
    "checks": {"answer": CHECK},
    "judged": {"answer": JUDGED},
    "judge_decides": True,
    "labels": {"answer": "correct"},
    "keeps_contract": False,
    "violation": "missing",
    "violation_detail": "no segment",
    "num_tokens": 7,
    "truncated": False,
    "fields": {"answer": "correct"},
    "verdict": "correct",
    "reason": "labelled by a person",
    "unjudgeable": "",
}
TUNING = {
    "strategy": "sftkey-tag",
    "metric": "guard/score",
    "mode": "max",
    "held_out": 50,
    "asha": {"grace_period_steps": None, "reduction_factor": 3},
    "trials": [
        {
            "run_dir": "trial-001",
            "digest": "0123",
            "parameters": {"training.lora": {"rank": 8}, "key_stage.optimization.learning_rate": 1e-05},
            "status": "stopped",
            "scores": [{"step": 0, "value": 0.5}, {"step": 25, "value": None}],
            "final": None,
            "problem": "",
        }
    ],
}
STRATEGY = {
    "form": "tagged",
    "dataset": "memos/test",
    "key_segments": ["answer"],
    "mlflow_run_id": None,
    "stages": [{"name": "full", "path": "stages/full-1", "shared_with": None}],
    "evaluation": None,
}
CONTINUATION = {
    "data_set": "memos/test",
    "id": "q1",
    "donor": "q2",
    "reasoning": "generated",
    "digest": "4567",
    "generation": None,
    "refusal": "",
}
SWAP = {
    "data_set": "memos/test",
    "id": "q1",
    "donor": "q2",
    "own_text": "yes",
    "own_verdict": "correct",
    "swapped_text": "no",
    "outcome": "follows",
}
SHARE = {"n": 2, "value": 0.5, "interval": [0.25, 0.75]}
SHARES = {
    **dict.fromkeys(("right", "follows", "keeps", "neither"), SHARE),
    "carries": {"n": 0, "value": None, "interval": [0.0, 1.0]},
    "num_donors": 2,
    "unjudged": {"own": 1},
    "left_out": {},
    "without_generated": {"broken_format": 2},
}
ROW = {
    "n": 2,
    "accuracy": 0.5,
    "format": 1.0,
    "score": 0.65,
    "alpha": 0.7,
    "dataset": "memos/test",
    "agreement": {"judge_and_check": {"n": 2, "share": 0.5, "kappa": None}},
    "stages": [{"name": "full", "steps": 4, "train_seconds": 1.5, "tokens": 9, "loss_tokens": 3}],
    "capabilities": [{"task": "memo_choice", "metric": "acc", "difference": None}],
    "swapped_reasoning": SHARES,
    "strategy": "sft",
    "unjudged": 0,
    "accuracy_bounds": [0.5, 0.5],
}

KINDS: dict[str, tuple[JsonFile[Any] | Journal[Any], list[dict[str, Any]], set[str]]] = {
    "metrics.jsonl": (
        of_training.METRICS,
        [
            STEP,
            STEP
            | {"step": 1, "segments": {}, "divergence": 0.25}
            | {"projection": {"conflicts": 1, "gradients": {"norms": {"a": 1.0}, "cosines": {"a and b": None}}}},
        ],
        {"divergence", "projection"},
    ),
    "timings.jsonl": (
        of_training.TIMINGS,
        [TIMING, TIMING_WITH_ALL],
        {"mfu", "collective_seconds", "watched_seconds", "watch_cost_seconds"},
    ),
    "validation.jsonl": (
        of_training.OBSERVATIONS,
        [
            {"step": 0, "validation": {"loss": 1.5, "segments": {"answer": NLL}}},
            {
                "step": 2,
                "guard": {"n": 9, "accuracy": None, "format": 1.0, "unjudged": 9, "truncated": 1, "score": 0.3},
            },
            {
                "step": 3,
                "validation": {"loss": None, "segments": {}},
                "guard": {"n": 9, "accuracy": 0.5, "format": 1.0, "score": 0.65, "signal": "teacher_forced"},
            },
        ],
        {"validation", "guard"},
    ),
    "interpolations.jsonl": (
        of_training.INTERPOLATIONS,
        [
            {
                "part": 0.5,
                "validation": {"loss": 1.5, "segments": {"answer": NLL}},
                "guard": {"n": 9, "accuracy": 0.5, "format": 1.0, "score": 0.65, "signal": "teacher_forced"},
            }
        ],
        set(),
    ),
    "yield.json": (of_training.YIELD, [YIELD], set()),
    "rows.jsonl": (
        of_training.SAMPLED_ROWS,
        [
            {"data_set": "1 d", "id": "q1", "outcomes": ["truncated", "accepted"], "trained": 1, "tokens": 20},
            {"data_set": "1 d", "id": "q2", "outcomes": ["unjudged", "too_long"], "trained": None, "tokens": 40},
        ],
        set(),
    ),
    "events.jsonl": (of_training.EVENTS, [{"event": "restarted", "message": "a node was lost"}], set()),
    "rank_00000.json": (
        of_underway.BEAT,
        [{"step": 1, "phase": "forward", "pid": 7, "peak_memory_gib": 0.5}, {"step": 0, "phase": "start", "pid": 7}],
        set(),
    ),
    "begun.json": (
        of_underway.BEGINNING,
        [
            {"title": "sft stage 1/1 (full)", "num_steps": 9, "seconds_between_beats": 1.5, "earlier_events": 2},
            {"title": "sft stage 1/1 (full)", "num_steps": 9, "seconds_between_beats": 1.5},
        ],
        set(),
    ),
    "tune.json": (of_tuning.TUNING, [TUNING], set()),
    "rounding.json": (of_training.ROUNDING, [ROUNDING], set()),
    "stage.json": (
        of_training.SUMMARY,
        [
            {
                "digest": "0123",
                "inputs": {"store": "4567", "weights": [0, 1.0], "optimization": {"learning_rate": 0.001}},
                "steps": 4,
                "tokens": 9,
                "loss_tokens": 3,
                "train_seconds": 1.5,
                "phase_seconds": {"forward": 1.5},
                "collective_share": None,
                "peak_memory_gib": 0.5,
                "wall_seconds": 2.5,
                "world_size": 2,
                "events": ["a node was lost"],
                "final_segments": {"answer": NLL},
                "rounding": ROUNDING,
                "gain": 0.5,
                "guard": {
                    "kept_step": 2,
                    "kept_score": 0.5,
                    "first_score": None,
                    "last_score": 0.25,
                    "evaluations": 3,
                },
                "model_files": {"model.safetensors": {"bytes": 9, "sha256": "0" * 64}},
                "own_responses": YIELD,
            }
        ],
        {
            "digest",
            "phase_seconds",
            "collective_share",
            "peak_memory_gib",
            "wall_seconds",
            "events",
            "final_segments",
            "rounding",
            "gain",
            "guard",
            "model_files",
            "own_responses",
        },
    ),
    "origin of stage.json": (of_training.ORIGIN, [{"inputs": {"store": "4567"}}], set()),
    "generations.jsonl": (
        of_evaluation.GENERATIONS,
        [{"data_set": "d", "id": "q1", "samples": [{"text": "\ud800", "num_tokens": 1, "truncated": False}]}],
        set(),
    ),
    "records.jsonl": (
        of_evaluation.RECORDS,
        [
            RECORD,
            RECORD | {"explanation_rating": None, "explanation_reason": "refused", "explanation_is_open": True},
            RECORD | {"explanation_rating": 4, "explanation_reason": "", "explanation_is_open": False},
        ],
        {
            *("history", "checks", "judged", "judge_decides", "labels", "violation_detail", "fields", "verdict"),
            *("reason", "unjudgeable", "explanation_rating", "explanation_reason", "explanation_is_open"),
        },
    ),
    "model.json": (of_evaluation.RESPONDING_MODEL, [{"weights_digest": "ab12", "is_renewed": True}], {"is_renewed"}),
    "scores.json": (
        of_evaluation.SCORES,
        [
            SCORES
            | {
                "data_sets": {"memos/test": SCORES},
                "macro_average": {"accuracy": None, "format": 1.0, "score": 0.5, "strict_score": None},
                "agreement": {"judge_and_check": {"n": 2, "share": 0.5, "kappa": None}},
                "to_review": 1,
                "judges": {"answers": {"asked": 2, "remembered": 0, "failures": {}, "messages": {}, "notes": ["n"]}},
                "is_complete": True,
                "scoring_digest": "89ab",
            }
        ],
        {
            *("fields", "pass_at_k", "majority_accuracy", "explanation_rating", "unjudgeable"),
            *("judges", "scoring_digest"),
        },
    ),
    "state of scores.json": (
        of_evaluation.SCORING_STATE,
        [{"is_complete": True, "scoring_digest": "89ab"}],
        {"is_complete", "scoring_digest"},
    ),
    "rulings.jsonl": (of_evaluation.RULINGS, [{"key": "k", "value": "correct", "reason": "same"}], set()),
    "replies.jsonl": (of_segmenting.REPLIES, [{"key": "k", "reply": "{}"}], set()),
    "memo_choice-0123.json": (
        of_capabilities.CAPABILITY,
        [
            {
                "task": "memo_choice",
                "digest": "0123",
                "harness_version": "0.4.13",
                "task_versions": {"memo_choice": "1.0"},
                "num_documents": 1,
                "metrics": [
                    {
                        "name": "acc",
                        "mean": 1.0,
                        "standard_error": None,
                        "higher_is_better": True,
                        "values": {"memo_choice 0 4567": 1.0},
                    }
                ],
            }
        ],
        set(),
    ),
    "capabilities.json": (
        of_capabilities.CAPABILITY_FILES,
        [{"base": {"memo": "capabilities/memo-01.json"}, "strategies": {"sft": {"memo": "capabilities/memo-02.json"}}}],
        {"base", "strategies"},
    ),
    "swapped_reasoning.jsonl": (
        of_swapped.CONTINUATIONS,
        [
            CONTINUATION | {"reasoning": "own", "generation": {"text": "yes", "num_tokens": 1, "truncated": False}},
            CONTINUATION | {"refusal": "too_long"},
        ],
        {"refusal"},
    ),
    "swapped_reasoning.json": (
        of_swapped.SWAPPED,
        [
            {
                "digest": "0123",
                "records": [SWAP, SWAP | {"generated_text": "no", "generated_outcome": "keeps"}],
                "left_out": {"no_donor": 1},
                "without_generated": {"broken_format": 1},
            }
        ],
        {"left_out", "without_generated"},
    ),
    "state of swapped_reasoning.json": (of_swapped.SWAP_STATE, [{"digest": "0123"}], {"digest"}),
    "strategies.json": (
        of_run.STRATEGIES,
        [{"sft": STRATEGY, "sft-tag": STRATEGY | {"swapped_reasoning": "evaluation/sft-tag/swapped_reasoning.json"}}],
        {"sft", "sft-tag"},
    ),
    "environment.json": (of_run.ENVIRONMENT, [{"torch": "2.13.0"}], {"torch"}),
    "tracking.json": (of_run.RUN_IDS, [{"strategy/sft/0123": "cdef"}], {"strategy/sft/0123"}),
    "wandb.json": (
        of_run.WANDB_RUNS,
        [{"stage/01": {"id": "cdef", "next_steps": {"loss": 3}, "summary": {"score": 0.5}, "is_finished": True}}],
        {"stage/01"},
    ),
    "data_report.json": (
        of_run.DATA_REPORT,
        [
            {
                "sets": [
                    {
                        "summary": "s",
                        "name": "train (tagged)",
                        "kept": 9,
                        "dropped": [{"reason": "too_long", "count": 2}],
                    }
                ],
                "test": {"summary": "test", "kept": 20},
            },
            {"sets": [{"summary": "train"}], "test": {"summary": "test", "kept": 20}},
        ],
        {"sets", "test"},
    ),
    "data_rows.jsonl": (
        of_run.DATA_ROWS,
        [{"set": "test", "row": "cases.csv:9", "reason": "repeats", "detail": "the prompt and the response of …"}],
        set(),
    ),
    "study.json": (
        of_studies.FACTS,
        [
            {
                "title": "t",
                "about": "",
                "command": "c",
                "seeds": [1],
                "variants": {"a": {"about": "", "seeds": [1]}},
                "contrasts": [{"question": "Does it help?", "first": "a/sftkey-tag", "second": "a/sft"}],
                "limits": "One model.",
                "curves": [
                    {
                        "question": "When?",
                        "x_label": "share",
                        "series": {
                            "gain": [
                                {"x": 0.5, "first": "a/sftkey-tag", "second": "a/sft"},
                                {"x": "a/sftkey-tag", "first": "a/sftkey-tag", "second": "a/sft"},
                            ]
                        },
                    }
                ],
            }
        ],
        {"limits", "curves"},
    ),
    "comparison.json": (of_studies.COMPARISON, [{"rows": [ROW]}], set()),
}
"""Every kind of file: its form, what is written today, and the keys that a reader can do without."""


def test_no_kind_of_file_is_forgotten():
    rooms: tuple[ModuleType, ...] = (
        *(of_training, of_tuning, of_underway, of_evaluation, of_capabilities, of_swapped),
        *(of_run, of_studies, of_segmenting),
    )
    forms = {id(value) for room in rooms for value in vars(room).values() if isinstance(value, FileKind)}
    # neither is ever written from what a report reads of it
    settings = {id(of_run.SETTINGS), id(of_run.EVERY_SETTING)}
    assert forms - settings == {id(form) for form, _, _ in KINDS.values()}


def write_plain(file: Path, form: JsonFile[Any] | Journal[Any], plain: dict[str, Any] | list[dict[str, Any]]) -> None:
    """As the writer of a file of this form lays JSON out."""
    if isinstance(form, Journal):
        file.write_text("".join(to_json(line) + "\n" for line in plain))
    else:
        file.write_text(to_json(plain[0], indent=2) + "\n")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_written_again_byte_by_byte(tmp_path, kind):
    form, plain, _ = KINDS[kind]
    file, again = tmp_path / kind, tmp_path / "again"
    write_plain(file, form, plain)
    form.write(again, form.read(file))
    assert again.read_bytes() == file.read_bytes()


def broken(plain: dict[str, Any], optional: set[str]) -> dict[str, dict[str, Any]]:
    """By what must be named: objects that lack a key, or hold a value of another type."""
    found = {f"{key}: Field required": {k: v for k, v in plain.items() if k != key} for key in plain.keys() - optional}
    for key, value in plain.items():
        found[key] = plain | {key: 7 if isinstance(value, str) else [] if value is None else "seven"}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_missing_or_of_another_type_is_named_in_one_line(tmp_path, kind):
    form, (*before, last), optional = KINDS[kind]
    file = tmp_path / kind
    place = f"{file}:{len(before) + 1}" if isinstance(form, Journal) else f"{file}"
    cases = broken(last, optional)
    assert cases
    for named, content in cases.items():
        write_plain(file, form, [*before, content] if isinstance(form, Journal) else [content])
        with pytest.raises(DataError) as raised:
            form.read(file)
        message = str(raised.value)
        assert message.startswith(f"{place}: {named}"), message
        assert message.endswith(f"; {form.remedy}")
        assert "\n" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_a_newer_version_is_refused_in_one_line(tmp_path, kind):
    form, (plain, *_), _ = KINDS[kind]
    write_plain(tmp_path / kind, form, [{"format_version": FORMAT_VERSION + 1} | plain])
    with pytest.raises(DataError, match=r"a newer sftkey_dist .*format_version 2; .*install that version") as raised:
        form.read(tmp_path / kind)
    assert "\n" not in str(raised.value)


def test_a_journal_is_cut_with_every_line_as_it_stands(tmp_path):
    """Keys of a later version among them, which this one does not know."""
    file, beats = tmp_path / "events.jsonl", '{"event": "%s", "message": "m", "more": {"b": 1, "a": 1e-07}}\n'
    file.write_text(beats % "kept" + beats % "dropped" + beats % "kept too")
    of_training.EVENTS.keep(file, lambda event: event.event != "dropped")
    assert file.read_text() == beats % "kept" + beats % "kept too"


@pytest.fixture
def run(tmp_path) -> Path:
    folder = write_run(tmp_path / "run", {"sft-tag": 12, "sftkey-tag": 15})
    source = {"adapter": "decision_memos", "limit": 8}
    config = RunConfig(run_dir=folder, model={"path": "m"}, data={"train": source, "test": source | {"split": "test"}})
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


READERS: dict[str, list[Callable[[Path], object]]] = {
    "strategies.json": [
        lambda run: read_comparison([run]),
        lambda run: forget_all_but(RunDir(run), ["sft-tag"]),
        lambda run: sync(run),
    ],
    "stages/full-1/stage.json": [lambda run: read_comparison([run]), lambda run: diagnose_run(run)],
    "evaluation/sft-tag/scores.json": [
        lambda run: read_comparison([run]),
        lambda run: is_scored(None, [], run / "evaluation/sft-tag"),
    ],
    "config.json": [lambda run: read_facts([run]), lambda run: diagnose_run(run), lambda run: sync(run)],
    "environment.json": [lambda run: read_facts([run])],
    "data_report.json": [lambda run: read_facts([run])],
    "tracking.json": [lambda run: _read_run_ids(run / "tracking.json")],
    "identity": [lambda run: RunDir(run).identity()],
    "first_prepared": [lambda run: RunDir(run).first_prepared()],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_a_damaged_file_and_what_to_do(run, name, damage):
    (run / name).write_bytes(DAMAGES[damage])
    for read in READERS[name]:
        with pytest.raises(DataError, match=name.rpartition("/")[2]) as raised:
            read(run)
        message = str(raised.value)
        assert os.path.abspath(message.partition(": ")[0]) == str(run / name)
        assert any(word in message for word in ("restore", "remove", "writes it again"))
        assert "\n" not in message


@pytest.mark.parametrize("name", ["stages/full-1/metrics.jsonl", "stages/full-1/timings.jsonl"])
def test_nuls_in_the_middle_of_a_journal_are_named_with_their_line(run, name, tmp_path):
    lines = (run / name).read_bytes().split(b"\n")
    lines[1] = b"\0" * len(lines[1])
    (run / name).write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=rf"{name}:2: the line is damaged \(NULs\); restore it from a copy, or remove"):
        compare([run], tmp_path / "comparison.json")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("stages/full-1/metrics.jsonl", "balance"),
        ("stages/key-2/timings.jsonl", "tokens_per_second"),
        ("evaluation/sft-tag/records.jsonl", "answer_source"),
    ],
)
def test_a_record_that_lacks_a_key_ends_a_command_in_one_line(run, name, key, tmp_path):
    first, *rest = (run / name).read_text().splitlines()
    lacking = {k: v for k, v in json.loads(first).items() if k != key}
    (run / name).write_text("\n".join([json.dumps(lacking), *rest]) + "\n")
    with pytest.raises(DataError, match=rf"{name}:1: {key}: Field required; restore it from a copy") as raised:
        compare([run], tmp_path / "comparison.json")
    assert "\n" not in str(raised.value)


def test_records_of_an_evaluation_and_rulings_of_judges_are_checked_too(run, tmp_path):
    records = run / "evaluation" / "sft-tag" / "records.jsonl"
    records.write_text("{}\n{broken\n" + records.read_text())
    with pytest.raises(DataError, match=r"records\.jsonl:2: the line is damaged"):
        diagnose_run(run)
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "rulings-1.jsonl").write_bytes(b"\0\0\n")
    with pytest.raises(DataError, match=r"rulings-1\.jsonl:1: .*remove that line.*asked again"):
        JudgeMemory(tmp_path / "judge", run)


@pytest.mark.parametrize("path", ["../../x", "/etc", "evaluation/../../x", "", "a\0b"])
@pytest.mark.parametrize("place", ["evaluation", "stage"])
def test_a_path_that_leads_out_of_the_run_is_refused(run, place, path):
    entries = json.loads((run / "strategies.json").read_text())
    if place == "evaluation":
        entries["sft-tag"]["evaluation"] = path
    else:
        entries["sft-tag"]["stages"][0]["path"] = path
    (run / "strategies.json").write_text(json.dumps(entries))
    for read in READERS["strategies.json"]:
        with pytest.raises(DataError, match=r"strategies\.json: sft-tag\..*points outside the run's folder"):
            read(run)


@pytest.mark.parametrize("content", [{"sft-tag": {}}, {"sft-tag": {"stages": []}}, {"sft-tag": 1}])
def test_an_entry_that_lacks_something_is_named_by_its_key(run, content):
    (run / "strategies.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"strategies\.json: sft-tag"):
        read_comparison([run])


def test_scores_that_lack_something_are_named_by_it(run):
    file = run / "evaluation" / "sft-tag" / "scores.json"
    content = json.loads(file.read_text())
    del content["agreement"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"scores\.json: agreement: Field required; remove it and evaluate"):
        read_comparison([run])


def test_a_studys_files_are_checked(tmp_path):
    facts = {"title": "t", "about": "", "command": "", "seeds": [1], "contrasts": []}
    facts["variants"] = {"a": {"about": "", "seeds": [1]}}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    (tmp_path / "a" / "seed-1").mkdir(parents=True)
    (tmp_path / "a" / "seed-1" / "done.json").write_text(json.dumps({"digest": "ab"}))
    for content in DAMAGES.values():
        (tmp_path / "a" / "seed-1" / "comparison.json").write_bytes(content)
        with pytest.raises(DataError, match=r"comparison\.json: .*; remove done\.json beside it and `sftkey run`"):
            Evidence.read(tmp_path)
    (tmp_path / "run.yaml").write_text("prompt: {date: {")
    with pytest.raises(DataError, match=r"run\.yaml: damaged .*set prompt\.date"):
        _written_date(tmp_path / "run.yaml")
    (tmp_path / "study.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"study\.json: empty; `sftkey run` with the study's configuration renews it"):
        Evidence.read(tmp_path)


def test_a_run_that_is_renamed_keeps_the_place_of_its_checkpoints(tmp_path):
    run = tmp_path / "a run/of ours"
    run.mkdir(parents=True)
    identity = RunDir(run).identity()
    assert identity.startswith("of_ours-")
    renamed = run.rename(tmp_path / "renamed")
    assert RunDir(renamed).identity() == identity
