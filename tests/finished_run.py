"""A run directory as the pipeline leaves it, without the work: for tests of what is made of one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftkey_dist.contract import ResponseContract
from sftkey_dist.evaluation.score import macro_average, score_by_data_set, score_records
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS, SCORES, EvaluationRecord, EvaluationScores
from sftkey_dist.run_dir.artifacts.training import METRICS, SUMMARY, TIMINGS
from tests.records import nll, output_record, stage_summary, step_metrics, step_timing

NUM_QUESTIONS = 20


def write_run(
    run: Path, correct: Mapping[str, int], output: str = "so review", name: str = "memos/test", verdict: str = ""
) -> Path:
    """Strategies with so many right answers of twenty; ``sftkey-tag`` shares its first stage with ``sft-tag``.

    With ``verdict`` every answer has that one.
    """
    for number, stage in enumerate(("full-1", "key-2")):
        folder = StageDir(run / "stages" / stage)
        folder.path.mkdir(parents=True, exist_ok=True)
        segments = [{"answer": nll(2.0 / (s + 1 + number)), "reasoning": nll(0.5)} for s in range(4)]
        METRICS.write(folder.metrics, [step_metrics(s, segments=of_step) for s, of_step in enumerate(segments)])
        TIMINGS.write(folder.timings, [step_timing(s, tokens_per_second=1000.0 + s) for s in range(4)])
        SUMMARY.write(folder.summary, stage_summary(train_seconds=10.0 + number))
    entries = {
        strategy: _write_strategy(run, strategy, right, output, name, verdict) for strategy, right in correct.items()
    }
    _write(run / "strategies.json", json.dumps(entries))
    config = {
        "run_dir": str(run),
        "model": {"path": "Qwen/Qwen2.5-7B"},
        "data": {"test": [{"adapter": "gsm8k"}]},
        "contract": ResponseContract().model_dump(mode="json"),
        "seed": len(correct),
    }
    _write(run / "config.json", json.dumps(config))
    _write(run / "environment.json", json.dumps({"torch": "2.13.0"}))
    return run


def _write_strategy(run: Path, strategy: str, right: int, output: str, name: str, verdict: str) -> dict[str, Any]:
    records = [
        _record(i, verdict or ("correct" if i < right else "incorrect"), output, name) for i in range(NUM_QUESTIONS)
    ]
    folder = run / "evaluation" / strategy
    folder.mkdir(parents=True, exist_ok=True)
    RECORDS.write(folder / "records.jsonl", records)
    by_data_set = score_by_data_set(records, 0.7)
    scores = EvaluationScores(
        **vars(score_records(records, 0.7)),
        data_sets=by_data_set,
        macro_average=macro_average(by_data_set),
        agreement={},
        to_review=0,
        is_complete=True,
    )
    SCORES.write(folder / "scores.json", scores)
    stages = ["full-1", "key-2"] if strategy == "sftkey-tag" else ["full-1"]
    return {
        "form": "tagged",
        "dataset": name,
        "key_segments": ["answer"],
        "mlflow_run_id": None,
        "evaluation": f"evaluation/{strategy}",
        "stages": [
            {"name": s.split("-")[0], "path": f"stages/{s}", "shared_with": "sft-tag" if s == "full-1" else None}
            for s in stages
        ],
    }


def _record(number: int, verdict: str, output: str, data_set: str) -> EvaluationRecord:
    return output_record(
        verdict,
        id=f"q{number}",
        data_set=data_set,
        prompt="Income: steady. Approve, review or reject?",
        output=output,
        reference={"reasoning": "Income is steady.", "answer": "review"},
        segments={"reasoning": "so", "answer": "review"},
        answer={"answer": "review"},
        answer_source={"answer": "strict"},
        fields={"answer": verdict},
        truncated=number == 0,
        num_tokens=5 + number,
    )


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
