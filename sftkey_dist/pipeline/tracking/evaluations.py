"""Tracks evaluations: scores of the model and of the data set that it was tested on, and a table of outputs."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.swapped.summary import SwapShares
from sftkey_dist.pipeline.responding_model import renewal
from sftkey_dist.pipeline.tracking.runs import common_tags, ending_run, short
from sftkey_dist.run_dir import EvaluationDir, RunDir, StageDir
from sftkey_dist.run_dir.artifacts.capabilities import read_capabilities
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS, SCORES, EvaluationRecord, EvaluationScores, Scores
from sftkey_dist.run_dir.artifacts.run import StrategyEntry, read_strategies
from sftkey_dist.run_dir.artifacts.swapped import read_swapped
from sftkey_dist.run_dir.artifacts.training import read_summary
from sftkey_dist.tracking import DataSetNote, MeasuredScores, ModelNote, Tracker

OUTPUTS = "outputs.json"
"""Name of the table of outputs in the run of a strategy."""
_TABLE_ROWS = 1000
_GIB = 2**30
_OF_STRATEGY = ("accuracy", "format", "score", "strict_score", "unjudged")
"""The scores in the run of a strategy, whose columns stand side by side; its evaluation has all of them."""
_NOT_AMONG_SCORES = ("n", "alpha", "is_complete", "guided")
_GUIDED = "guided/"
"""Before the names of scores of guided decoding, because a strategy has one run for all its evaluations."""
_NOT_IN_A_NAME = re.compile(r"[^\w./ -]")


def track_evaluation(
    config: RunConfig, run: RunDir, strategy: str, folder: Path, parent: str | None, tracker: Tracker
) -> None:
    """Log an evaluation whose scores are complete, unless it was already logged completely."""
    paths = EvaluationDir(folder)
    scores = SCORES.read(paths.scores)
    key = f"evaluation/{folder.name}/{scores.scoring_digest}{_key_end(renewal(folder))}"
    if parent is None or tracker.has_finished(key) or not scores.is_complete:
        return
    entry = read_strategies(run)[strategy]
    records = RECORDS.read(paths.records)
    measured = _measured(scores, _test_sets(config, records))
    of_strategy, kind = _of_strategy(measured[0].values), _GUIDED if scores.guided else ""
    guided = {"sftkey.guided": "true"} if scores.guided else {}
    tags = common_tags(config, run, strategy) | {"sftkey.evaluation": folder.name, **guided}
    run_id = tracker.start_run(key, "evaluation", parent, tags)
    with ending_run(tracker, run_id):
        tracker.note_model(parent, _model(config, run, strategy, entry))
        tracker.log_summary(parent, _prefixed(kind, of_strategy) | _costs(run, entry))
        tracker.log_table(parent, table_of(records[:_TABLE_ROWS]), kind.replace("/", "_") + OUTPUTS)
        tracker.log_scores(run_id, [replace(of, values=_prefixed(kind, of.values)) for of in measured], parent)
        for file in (paths.records, paths.scores, paths.review):
            tracker.log_artifact(run_id, file)


def track_capabilities(config: RunConfig, run: RunDir, strategy: str, parent: str | None, tracker: Tracker) -> None:
    """Log the results of a strategy's model in the tasks of the capability check, unless they were already logged."""
    results = read_capabilities(run).strategies.get(strategy, ())
    key = f"capabilities/{strategy}/{digest_json([result.digest for result in results])}"
    if parent is None or not results or tracker.has_finished(key):
        return
    run_id = tracker.start_run(key, "capabilities", parent, common_tags(config, run, strategy))
    with ending_run(tracker, run_id):
        numbers = {_capability(of.task, metric.name): metric.mean for of in results for metric in of.metrics}
        for of_run in (run_id, parent):
            tracker.log_summary(of_run, {name: value for name, value in numbers.items() if not math.isnan(value)})


def track_swapped(config: RunConfig, run: RunDir, strategy: str, parent: str | None, tracker: Tracker) -> None:
    """Log what a strategy's answers follow after swapped reasoning, unless it was already logged or not measured."""
    file = read_strategies(run)[strategy].swapped_reasoning
    found = read_swapped(run.path, file)
    if parent is None or found is None:
        return
    key = f"{file}/{found.digest}{_key_end(renewal((run.path / str(file)).parent))}"
    if tracker.has_finished(key):
        return
    run_id = tracker.start_run(key, "swapped reasoning", parent, common_tags(config, run, strategy))
    with ending_run(tracker, run_id):
        shares = SwapShares.of(found).by_name
        numbers = {f"swapped_reasoning/{name}": share.value for name, share in shares.items() if share.n}
        for of_run in (run_id, parent):
            tracker.log_summary(of_run, numbers)  # also if the evaluation is guided, because this decoding is free


def _key_end(weights: str) -> str:
    """The end of a key, for a model that has taken the place of another."""
    return f"/{weights[:12]}" if weights else ""


def track_model(config: RunConfig, model: Path, parent: str | None, tracker: Tracker) -> None:
    """Upload a strategy's model with its card, unless it is too large."""
    if _folder_bytes(model) <= config.tracking.max_model_gib * _GIB and (model / "README.md").is_file():
        tracker.log_model(parent, model, config.model.trust_remote_code)


def table_of(records: Sequence[EvaluationRecord]) -> dict[str, list[object]]:
    """The outputs as columns, of which the first are read beside each other."""
    table: dict[str, list[object]] = {
        "question": [record.prompt for record in records],
        "reference": [_shown({name: record.reference.get(name, "") for name in record.fields}) for record in records],
        "answer": [_shown(record.answer) for record in records],
        "verdict": [record.verdict.value for record in records],
        "format": [record.violation or "kept" for record in records],
        "output": [record.output for record in records],
        "reason": [record.reason for record in records],
        "id": [record.id for record in records],
        "data_set": [record.data_set for record in records],
    }
    return table | ({"sample": [record.sample for record in records]} if any(r.sample for r in records) else {})


def _shown(texts: Mapping[str, str]) -> str:
    """The text of the key segment, or the texts of several as JSON."""
    return next(iter(texts.values())) if len(texts) == 1 else json.dumps(dict(texts), ensure_ascii=False)


def _model(config: RunConfig, run: RunDir, strategy: str, entry: StrategyEntry) -> ModelNote:
    params = {
        "strategy": strategy,
        "stages": ", ".join(stage.name for stage in entry.stages),
        "seed": str(config.seed),
        "base_model": config.model.path or "embedded",
    }
    return ModelNote(StageDir(run.path / entry.stages[-1].path).model, params)


def _test_sets(config: RunConfig, records: Sequence[EvaluationRecord]) -> list[DataSetNote]:
    """The test sets by the ids of their examples."""
    notes = []
    for source in config.data.test_sources:
        ids = [record.id for record in records if record.data_set == source.data_set]
        notes.append(DataSetNote(source.data_set, short(digest_json(ids)), "testing", source.place, len(ids)))
    return notes


def _measured(scores: EvaluationScores, test_sets: Sequence[DataSetNote]) -> list[MeasuredScores]:
    """The scores over all test sets, and, if there are several, those of each."""
    if len(test_sets) == 1:
        return [MeasuredScores(_numbers(scores), test_sets[0])]
    macro = {f"macro/{name}": value for name, value in vars(scores.macro_average).items() if not math.isnan(value)}
    of_each = [
        MeasuredScores(_under(of.name, _numbers(scores.data_sets[of.name])), of)
        for of in test_sets
        if of.name in scores.data_sets
    ]
    return [MeasuredScores(_numbers(scores) | macro, None), *of_each]


def _under(data_set: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers under the name of a test set."""
    return _prefixed(f"{_allowed(data_set)}/", numbers)


def _capability(task: str, metric: str) -> str:
    """Name of a metric of a task; the harness's own have names such as ``exact_match/maj@64``."""
    return _allowed(f"capability/{task}/{metric}")


def _allowed(name: str) -> str:
    """A name as far as MLflow allows it."""
    return _NOT_IN_A_NAME.sub("_", name)


def _prefixed(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in numbers.items()}


def _numbers(scores: Scores) -> dict[str, float]:
    """All scores that are numbers, without nan, and those of key segments if there are several."""
    values = {
        **{name: value for name, value in vars(scores).items() if name not in _NOT_AMONG_SCORES},
        **({f"field/{name}": value for name, value in scores.fields.items()} if len(scores.fields) > 1 else {}),
        **{f"pass_at_{k}": value for k, value in scores.pass_at_k.items()},
        "n": scores.n,  # last, because charts have the order of the names
    }
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def _of_strategy(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if name in _OF_STRATEGY or name.startswith("macro/")}


def _costs(run: RunDir, entry: StrategyEntry) -> dict[str, float]:
    """What the strategy's stages cost in all, including those that it shares."""
    summaries = [read_summary(StageDir(run.path / stage.path)) for stage in entry.stages]
    return {
        "train_seconds": sum(summary.train_seconds for summary in summaries),
        "loss_tokens": float(sum(summary.loss_tokens for summary in summaries)),
    }


def _folder_bytes(folder: Path) -> int:
    """Total size of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
