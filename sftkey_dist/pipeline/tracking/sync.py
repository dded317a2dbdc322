"""Uploads the metrics that trackers lack from the files of a run directory, each point once."""

from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.pipeline.tracking.evaluations import track_capabilities, track_evaluation, track_model, track_swapped
from sftkey_dist.pipeline.tracking.runs import (
    metrics_of,
    note_shared_stage,
    open_tracker,
    stage_run,
    strategy_run,
    track_comparison,
    track_yield,
)
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.kinds import JsonFile
from sftkey_dist.run_dir.artifacts.run import StrategyEntry, read_strategies
from sftkey_dist.run_dir.artifacts.training import StageSummary, read_summary
from sftkey_dist.tracking import Tracker

_CONFIG = JsonFile(RunConfig, "run `sftkey run` with the run's configuration, which writes it again")


def sync(run_dir: Path) -> int:
    """Bring the trackers up to date with a run.

    Returns:
        The number of metric points that were missing, in all trackers together.

    Raises:
        DataError: the folder has no trained strategies.
        ConfigError: tracking is disabled, or the store cannot be reached.
    """
    run = RunDir(run_dir)
    strategies = read_strategies(run)
    config = _CONFIG.read(run.config)
    if not config.tracking.tracks:
        raise ConfigError(f"{run.config}: tracking is disabled for this run (tracking.enabled=false)")
    tracker = open_tracker(config.model_copy(update={"run_dir": run.path}))
    return sum(_sync_strategy(config, run, name, entry, tracker) for name, entry in strategies.items())


def _sync_strategy(config: RunConfig, run: RunDir, name: str, entry: StrategyEntry, tracker: Tracker) -> int:
    directories = [StageDir(run.path / stage.path) for stage in entry.stages]
    summaries = [read_summary(directory) for directory in directories]
    store = str(summaries[-1].inputs["store"])
    missing = 0
    with strategy_run(config, run, name, entry.form, summaries[-1].digest, store, tracker) as parent:
        for stage, directory, summary in zip(entry.stages, directories, summaries, strict=True):
            if stage.shared_with:
                note_shared_stage(config, run, name, stage.name, summary.digest, stage.shared_with, parent, tracker)
            else:
                missing += _sync_stage(config, run, name, stage.name, directory, summary, parent, tracker)
        if entry.evaluation:
            track_evaluation(config, run, name, run.path / entry.evaluation, parent, tracker)
        track_capabilities(config, run, name, parent, tracker)
        track_swapped(config, run, name, parent, tracker)
        track_model(config, directories[-1].model, parent, tracker)
        track_comparison([parent], run.comparison_files, tracker)
    return missing


def _sync_stage(
    config: RunConfig,
    run: RunDir,
    strategy: str,
    stage: str,
    directory: StageDir,
    summary: StageSummary,
    parent: str | None,
    tracker: Tracker,
) -> int:
    was_finished = tracker.has_finished(f"stage/{summary.digest}")
    with stage_run(config, run, strategy, stage, summary.digest, summary.inputs, parent, tracker) as run_id:
        missing = 0
        track_yield(summary.own_responses, run_id, tracker)
        for records in metrics_of(directory):
            uploaded = tracker.log_missing(run_id, records)
            if run_id is None or uploaded is None:
                raise ConfigError("MLflow stopped answering; run `sftkey track sync` again when it answers")
            missing += uploaded
        if not was_finished:
            tracker.log_artifact(run_id, directory.summary)
    return missing
