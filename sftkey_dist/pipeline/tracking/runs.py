"""Tracks strategies, stages and evaluations from the files of the run directory, live and in `sync`.

All operations are idempotent: runs are found again by their keys, and existing parameters and metrics stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.study import run_name
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import InterruptedRunError, RunLostError
from sftkey_dist.pipeline.environment import git_commit
from sftkey_dist.release import version
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.training import METRICS, OBSERVATIONS, TIMINGS, SampleYield
from sftkey_dist.run_dir.journal import Record
from sftkey_dist.tracking import (
    RUN_DIR_TAG,
    RUN_TAG,
    SEED_TAG,
    STAGE_TAG,
    STRATEGY_TAG,
    DataSetNote,
    Tracker,
    make_tracker,
)

_SHOWN_OF_DIGEST = 12


def open_tracker(config: RunConfig) -> Tracker:
    """The tracker of a command, opened once at its start. If the store fails later, the command continues.

    Raises:
        ConfigError: the store cannot be reached.
    """
    run = RunDir(config.run_dir)
    return make_tracker(config.tracking, run.path, run.tracking)


@contextmanager
def strategy_run(
    config: RunConfig, run: RunDir, name: str, form: str, last_digest: str, store: str, tracker: Tracker
) -> Iterator[str | None]:
    """Start or continue the parent run of a strategy, and end it with the block as `ending_run` does.

    Other settings result in another run.

    Args:
        config: configuration of the run.
        run: its folder.
        name: name of the strategy.
        form: form of the responses.
        last_digest: digest of its last stage.
        store: digest of the data of its last stage.
        tracker: where it is tracked.
    """
    run_id = tracker.start_run(
        f"strategy/{name}/{last_digest}",
        name,
        None,
        common_tags(config, run, name) | {"sftkey.form": form},
    )
    with ending_run(tracker, run_id):
        settings = config.model_dump(mode="json", exclude={"tracking"})
        tracker.log_params(run_id, {"strategy": name, "form": form} | settings)
        _note_training_data(config, store, run_id, tracker)
        for file in (run.config, run.data_report, run.environment):
            if file.is_file():
                tracker.log_artifact(run_id, file)
        yield run_id


@contextmanager
def stage_run(
    config: RunConfig,
    run: RunDir,
    strategy: str,
    stage: str,
    digest: str,
    inputs: Mapping[str, object],
    parent: str | None,
    tracker: Tracker,
) -> Iterator[str | None]:
    """Start or continue the run of a stage below its strategy's run, and end it with the block as `ending_run` does;
    None if the strategy's run could not be started."""
    if parent is None:
        yield None
        return
    store = str(inputs["store"])
    tags = common_tags(config, run, strategy) | {
        STAGE_TAG: stage,
        "sftkey.data": short(store),
        "sftkey.world_size": str(config.cluster.num_workers),
    }
    run_id = tracker.start_run(f"stage/{digest}", f"stage {stage}", parent, tags)
    with ending_run(tracker, run_id):
        tracker.log_params(run_id, inputs)
        _note_training_data(config, store, run_id, tracker)
        yield run_id


def track_yield(found: SampleYield | None, run_id: str | None, tracker: Tracker) -> None:
    """Log the yield of the responses that a stage trains on, if they are the model's own."""
    if found is not None:
        numbers = {"rows": found.rows, "accepted_rows": found.accepted_rows, "accepted_share": found.share}
        tracker.log_summary(run_id, {f"own_responses/{name}": float(value) for name, value in numbers.items()})


def note_shared_stage(
    config: RunConfig,
    run: RunDir,
    strategy: str,
    stage: str,
    digest: str,
    shared_with: str,
    parent: str | None,
    tracker: Tracker,
) -> None:
    """Log a child run that tells which strategy has the metrics of a shared stage."""
    if parent is None:
        return
    tags = common_tags(config, run, strategy) | {STAGE_TAG: stage, "sftkey.shared_with": shared_with}
    run_id = tracker.start_run(f"shared/{parent}/{digest}", f"stage {stage} of {shared_with}", parent, tags)
    tracker.end_run(run_id)


def track_comparison(parents: Sequence[str | None], files: Sequence[Path], tracker: Tracker) -> None:
    """Log the comparison's files in the run of each strategy that it compares."""
    for parent in parents:
        for file in files:
            tracker.log_artifact(parent, file)


def metrics_of(directory: StageDir) -> list[list[Record]]:
    """The records of a stage's steps and measurements, as plain values for a tracker."""
    read = METRICS.read(directory.metrics), TIMINGS.read(directory.timings), OBSERVATIONS.read(directory.validation)
    return [[to_plain(record) for record in records] for records in read]


@contextmanager
def ending_run(tracker: Tracker, run_id: str | None) -> Iterator[None]:
    """End a run as finished if the block succeeds, as killed if a signal ends it, and as failed otherwise.

    When the run directory is lost, the run stays as it is, because it may be another command's now.
    """
    try:
        yield
    except (InterruptedRunError, KeyboardInterrupt):  # the latter where the caller is a Python program
        tracker.end_run(run_id, "KILLED")
        raise
    except RunLostError:
        raise
    except BaseException:
        tracker.end_run(run_id, "FAILED")
        raise
    tracker.end_run(run_id)


def common_tags(config: RunConfig, run: RunDir, strategy: str) -> dict[str, str]:
    """Tags by which runs can be filtered and grouped."""
    in_study = run_name(run.path.parent.name, config.seed)
    tags = {
        STRATEGY_TAG: strategy,
        RUN_TAG: in_study if in_study.endswith(f"/{run.path.name}") else run.path.name,
        RUN_DIR_TAG: str(run.path),
        "sftkey.version": version(),
        "sftkey.model": config.model.path or "embedded",
        "sftkey.contract": short(digest_json(config.contract.model_dump(mode="json"))),
        SEED_TAG: str(config.seed),
        "mlflow.source.name": "sftkey",
        "mlflow.source.type": "LOCAL",
    }
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def short(digest: str) -> str:
    """The digest as tags and data sets show it."""
    return digest[:_SHOWN_OF_DIGEST]


def _note_training_data(config: RunConfig, store: str, run_id: str | None, tracker: Tracker) -> None:
    """Log the training data, by the digest of the encoded store."""
    for source in config.data.train:
        note = DataSetNote(source.data_set, short(store), "training", source.place, source.limit)
        tracker.log_data_set(run_id, note)
