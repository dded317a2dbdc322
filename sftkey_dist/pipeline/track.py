"""Tracks strategies, stages and evaluations from the files of the run directory, live and in `sync`.

All operations are idempotent: runs are found again by their keys, and existing parameters and metrics stay.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import InterruptedRunError
from sftkey_dist.pipeline.environment import git_commit
from sftkey_dist.release import version
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS, SCORES, EvaluationRecord, EvaluationScores
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.training import METRICS, OBSERVATIONS, TIMINGS, SampleYield
from sftkey_dist.run_dir.journal import Record
from sftkey_dist.tracking import (
    RUN_DIR_TAG,
    RUN_TAG,
    STAGE_TAG,
    STRATEGY_TAG,
    DataSetNote,
    Tracker,
    make_tracker,
)

_TABLE_ROWS = 1000
_GIB = 2**30


def open_tracker(config: RunConfig) -> Tracker:
    """The tracker of a command, opened once at its start. If the store fails later, the command continues.

    Raises:
        ConfigError: the store cannot be reached.
    """
    run = RunDir(config.run_dir)
    return make_tracker(config.tracking, run.path, run.tracking)


def start_strategy(
    config: RunConfig, run: RunDir, name: str, form: str, last_digest: str, tracker: Tracker
) -> str | None:
    """Start or continue the parent run of a strategy. Other settings result in another run."""
    run_id = tracker.start_run(
        f"strategy/{name}/{last_digest}",
        name,
        None,
        _common_tags(config, run) | {STRATEGY_TAG: name, "sftkey.form": form},
    )
    tracker.log_params(run_id, {"strategy": name, "form": form} | config.model_dump(mode="json", exclude={"tracking"}))
    _note_training_data(config, "", run_id, tracker)
    for file in (run.config, run.data_report, run.environment):
        if file.is_file():
            tracker.log_artifact(run_id, file)
    return run_id


def start_stage(
    config: RunConfig,
    run: RunDir,
    strategy: str,
    stage: str,
    digest: str,
    inputs: Mapping[str, object],
    parent: str | None,
    tracker: Tracker,
) -> str | None:
    """Start or continue the run of a stage below its strategy's run; None if that could not be started."""
    if parent is None:
        return None
    tags = {
        STRATEGY_TAG: strategy,
        STAGE_TAG: stage,
        "sftkey.data": str(inputs["store"])[:12],
        "sftkey.world_size": str(config.cluster.num_workers),
    }
    run_id = tracker.start_run(f"stage/{digest}", f"stage {stage}", parent, _common_tags(config, run) | tags)
    tracker.log_params(run_id, inputs)
    _note_training_data(config, tags["sftkey.data"], run_id, tracker)
    return run_id


def track_yield(found: SampleYield | None, run_id: str | None, tracker: Tracker) -> None:
    """Log the yield of the responses that a stage trains on, if they are the model's own."""
    if found is not None:
        numbers = {"rows": found.rows, "accepted_rows": found.accepted_rows, "accepted_share": found.share}
        tracker.log_summary(run_id, {f"own_responses/{name}": float(value) for name, value in numbers.items()})


def track_model(config: RunConfig, model: Path, parent: str | None, tracker: Tracker) -> None:
    """Log a strategy's model with its card, unless it is too large."""
    if folder_bytes(model) <= config.tracking.max_model_gib * _GIB and (model / "README.md").is_file():
        tracker.log_model(parent, model)


def note_shared_stage(stage: str, digest: str, shared_with: str, parent: str | None, tracker: Tracker) -> None:
    """Log a child run that tells which strategy has the metrics of a shared stage."""
    if parent is None:
        return
    run_id = tracker.start_run(
        f"shared/{parent}/{digest}",
        f"stage {stage} (shared with {shared_with})",
        parent,
        {STAGE_TAG: stage, "sftkey.shared_with": shared_with},
    )
    tracker.end_run(run_id)


def track_evaluation(
    config: RunConfig, run: RunDir, strategy: str, folder: Path, parent: str | None, tracker: Tracker
) -> None:
    """Log an evaluation whose scores are complete, unless it was already logged completely."""
    scores = SCORES.read(folder / "scores.json")
    key = f"evaluation/{folder.name}/{scores.scoring_digest}"
    if parent is None or tracker.has_finished(key) or not scores.is_complete:
        return
    tags = _common_tags(config, run) | {STRATEGY_TAG: strategy, "sftkey.evaluation": folder.name}
    run_id = tracker.start_run(key, "evaluation", parent, tags)
    with ending_run(tracker, run_id):
        numbers = _numbers(scores)
        for of in (run_id, parent):
            tracker.log_summary(of, numbers)
        records = RECORDS.read(folder / "records.jsonl")
        for source in config.data.test_sources:
            mine = [record for record in records if record.data_set == source.data_set]
            digest = digest_json([record.id for record in mine])[:12]
            tracker.log_data_set(run_id, DataSetNote(source.data_set, digest, "testing", source.place, len(mine)))
        tracker.log_table(run_id, _table(records[:_TABLE_ROWS]), "outputs.json")
        for name in ("records.jsonl", "scores.json", "review.jsonl"):
            tracker.log_artifact(run_id, folder / name)


def track_comparison(parents: Sequence[str | None], files: Sequence[Path], tracker: Tracker) -> None:
    """Log the comparison's files in the run of each strategy that it compares."""
    for parent in parents:
        for file in files:
            tracker.log_artifact(parent, file)


def metrics_of(directory: StageDir) -> list[list[Record]]:
    """The records of a stage's steps and measurements, as plain values for a tracker."""
    read = METRICS.read(directory.metrics), TIMINGS.read(directory.timings), OBSERVATIONS.read(directory.validation)
    return [[to_plain(record) for record in records] for records in read]


def folder_bytes(folder: Path) -> int:
    """Total size of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def ending_run(tracker: Tracker, run_id: str | None) -> Iterator[None]:
    """End a run as finished if the block succeeds, as killed if a signal ends it, and as failed otherwise."""
    try:
        yield
    except InterruptedRunError:
        tracker.end_run(run_id, "KILLED")
        raise
    except BaseException:
        tracker.end_run(run_id, "FAILED")
        raise
    tracker.end_run(run_id)


def _note_training_data(config: RunConfig, digest: str, run_id: str | None, tracker: Tracker) -> None:
    """Log the training data, by the digest of the encoded store, or else of the source's configuration."""
    for source in config.data.train:
        name = digest or digest_json(source.reading)[:12]
        tracker.log_data_set(run_id, DataSetNote(source.data_set, name, "training", source.place, source.limit))


def _common_tags(config: RunConfig, run: RunDir) -> dict[str, str]:
    """Tags by which runs can be filtered and grouped."""
    tags = {
        RUN_TAG: run.path.name,
        RUN_DIR_TAG: str(run.path),
        "sftkey.version": version(),
        "sftkey.model": config.model.path or "embedded",
        "sftkey.contract": digest_json(config.contract.model_dump(mode="json"))[:12],
        "sftkey.seed": str(config.seed),
    }
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _numbers(scores: EvaluationScores) -> dict[str, float]:
    """All scores that are numbers, including those of key segments and means over test sets, without nan."""
    values = {
        **vars(scores),
        **{f"field/{name}": value for name, value in scores.fields.items()},
        **{f"macro/{name}": value for name, value in vars(scores.macro_average).items()},
        **{f"pass_at_{k}": value for k, value in scores.pass_at_k.items()},
    }
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def _table(records: Sequence[EvaluationRecord]) -> dict[str, list[object]]:
    columns = ("id", "data_set", "prompt", "output", "verdict", "reason", "keeps_contract", "violation")
    table: dict[str, list[object]] = {name: [getattr(record, name) for record in records] for name in columns}
    for name in ("answer", "reference"):
        table[name] = [json.dumps(getattr(record, name), ensure_ascii=False) for record in records]
    return table | {"verdict": [record.verdict.value for record in records]}
