"""Trains the stages that the strategies need, each once, and tracks them."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack

from sftkey_dist.cluster.connection import connected, idle_in_words
from sftkey_dist.console import console
from sftkey_dist.errors import InterruptedRunError, StorageError
from sftkey_dist.files import remove_tree
from sftkey_dist.models.shape import count_parameters
from sftkey_dist.pipeline.changes import changes_in_words
from sftkey_dist.pipeline.finished import verify_stages
from sftkey_dist.pipeline.monitor import follow_stage
from sftkey_dist.pipeline.preflight import require_sound_nodes
from sftkey_dist.pipeline.prepare import write_configuration, write_provenance
from sftkey_dist.pipeline.records import forget_all_but, record_training
from sftkey_dist.pipeline.rounding import rounding_in_words
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.pipeline.summary import guard_in_words, write_summary
from sftkey_dist.pipeline.tracking.runs import note_shared_stage, stage_run, strategy_run, track_yield
from sftkey_dist.report.numbers import yield_note
from sftkey_dist.run_dir.artifacts.training import EVENTS
from sftkey_dist.run_dir.artifacts.underway import BEGINNING, Beginning
from sftkey_dist.sampler import count_trained
from sftkey_dist.tracking import Tracker
from sftkey_dist.training.checkpoint import (
    CHECKPOINTS_KEPT,
    Needs,
    newest_step,
    open_storage,
    remove_checkpoints,
    require_space,
)
from sftkey_dist.training.diagnostics.heartbeat import seconds_between_beats
from sftkey_dist.training.workers.launch import StageRunner, stage_runner


def train(plan: RunPlan, tracker: Tracker, *, nodes_are_checked: bool = False) -> None:
    """Train every stage that is not finished, and record the stages of each strategy.

    Args:
        plan: the stages.
        tracker: where they are tracked.
        nodes_are_checked: whether the nodes need not be measured, because others compute on them already.

    Raises:
        TrainingError: a stage stopped. Its checkpoints are kept, and the same command resumes from them.
        DataError: the model of a finished stage was changed.
    """
    config, preparation = plan.config, plan.preparation
    verify_stages(plan)
    write_configuration(config, preparation)
    for line in unreached_in_words(plan):
        console.print(line, soft_wrap=True)
    with ExitStack() as stack:
        if not plan.is_trained:
            write_provenance(preparation)
            stack.enter_context(connected(config.cluster, config.most_workers))
            if not nodes_are_checked:
                require_sound_cluster(plan)
            _require_fit(plan)
            if idle := idle_in_words(config.cluster):
                console.print(idle, soft_wrap=True)
        runner = stack.enter_context(stage_runner(config.cluster, plan.run.ray_storage))
        for planned in plan.strategies:
            form, last = planned.strategy.form.value, planned.stages[-1]
            store = str(last.inputs["store"])
            with strategy_run(config, plan.run, planned.name, form, last.digest, store, tracker) as parent:
                for stage in planned.stages:
                    _ensure_trained(plan, stage, runner, tracker, parent)
            record_training(plan, planned, tracker.mlflow_run_id(parent))
            _remove_masters(plan)
    forget_all_but(plan.run, [planned.name for planned in plan.strategies])


def require_sound_cluster(plan: RunPlan) -> None:
    """See `require_sound_nodes`."""
    stores = [store.path for store in plan.preparation.stores.values()]
    require_sound_nodes(plan.run.path, [*stores, plan.preparation.model_dir], plan.config.cluster)


def unreached_in_words(plan: RunPlan) -> Iterator[str]:
    """A line for every stage to be trained whose epochs end before its ``max_steps``."""
    for planned in plan.stages:
        settings = planned.stage.optimization
        if not planned.is_finished and settings.max_steps is not None and settings.max_steps > planned.num_steps:
            yield (
                f"{planned.title}: has {planned.num_steps:,} steps, because num_epochs={settings.num_epochs} ends "
                f"before max_steps={settings.max_steps:,}"
            )


def _require_fit(plan: RunPlan) -> None:
    """Check the memory if there are accelerators. The import is late because it loads torch and transformers."""
    if plan.config.cluster.gpus_per_worker:
        from sftkey_dist.pipeline.fits import require_fit

        require_fit(plan)


def _ensure_trained(
    plan: RunPlan, planned: PlannedStage, runner: StageRunner, tracker: Tracker, parent: str | None
) -> None:
    title = planned.title
    if planned.is_finished:
        reason = f"shared with {planned.shared_with}" if planned.shared_with else "finished earlier"
        console.print(f"{title}: {reason}, not trained again")
        remove_working_files(planned)
        if planned.shared_with:
            note_shared_stage(
                plan.config,
                plan.run,
                planned.strategy,
                planned.stage.name,
                planned.digest,
                planned.shared_with,
                parent,
                tracker,
            )
        return
    if planned.is_trained:
        console.print(
            f"{title}: trained earlier, but the float32 master weights that the next stage starts from are gone; it is "
            f"trained again (training.keep_masters=true keeps them)",
            soft_wrap=True,
        )
        planned.directory.summary.unlink()
    _train_stage(plan, planned, runner, tracker, parent)


def _train_stage(
    plan: RunPlan, planned: PlannedStage, runner: StageRunner, tracker: Tracker, parent: str | None
) -> None:
    config, title = plan.config, planned.title
    for line in changes_in_words(plan.run, planned, plan.stages):
        console.print(f"{title}: {line}", soft_wrap=True)
    started = time.perf_counter()
    planned = _with_its_data(plan, planned, runner)
    _require_space(planned)
    store = planned.data.store
    trained = count_trained(store.segment_counts, planned.stage.weights, example_weights=store.loss_weights)
    if left_out := len(store) - trained:
        console.print(f"{title}: {left_out:,} examples have no token that this stage trains and are left out")
    beats = seconds_between_beats(config.training.collective_timeout_seconds)
    earlier = len(EVENTS.read(planned.directory.events))
    BEGINNING.write(planned.directory.beginning, Beginning(title, planned.num_steps, beats, earlier))
    console.print(f"{title}: {_beginning(planned, config.cluster.num_workers)}", soft_wrap=True, markup=False)
    with stage_run(
        config, plan.run, planned.strategy, planned.stage.name, planned.digest, planned.inputs, parent, tracker
    ) as run_id:
        track_yield(planned.own_responses, run_id, tracker)
        with (
            follow_stage(planned.directory, title, planned.num_steps, tracker, run_id),
            tracker.watching_system(run_id if config.tracking.system_metrics else None),
        ):
            signal_number = runner.run_stage(planned.job)
        summary = write_summary(config, planned.job, planned, time.perf_counter() - started)
        plan.verified.add(planned.digest)
        remove_working_files(planned)
        if summary.guard:
            console.print(f"{title}: {guard_in_words(summary, summary.guard)}", soft_wrap=True)
        for line in rounding_in_words(summary):
            console.print(f"{title}: {line}", soft_wrap=True)
        tracker.log_artifact(run_id, planned.directory.summary)
    if signal_number is not None:
        raise InterruptedRunError(signal_number)


def _with_its_data(plan: RunPlan, planned: PlannedStage, runner: StageRunner) -> PlannedStage:
    """The stage with its own responses, if it trains on them. The import is late because few stages do."""
    if planned.stage.data is None:
        return planned
    from sftkey_dist.pipeline.own_data.responses import with_own_responses

    runner.dismiss_workers()  # those of the stage before hold what generation needs
    sampled = with_own_responses(plan, planned, planned.stage.data)
    if sampled.own_responses is not None:
        console.print(f"{planned.title}: {yield_note(sampled.own_responses)}", soft_wrap=True, markup=False)
    return sampled


def _beginning(planned: PlannedStage, num_workers: int) -> str:
    """What a stage is about to do: starting the workers takes a while without a sign of it."""
    done = newest_step(open_storage(planned.job.checkpoints))
    return (
        f"continuing on {num_workers} workers after step {done:,} of {planned.num_steps:,}"
        if done
        else f"starting {planned.num_steps:,} steps on {num_workers} workers"
    )


def _require_space(planned: PlannedStage) -> None:
    job = planned.job
    num_parameters = count_parameters(job.model_dir)
    # The candidates that checkpoints may resume with, and the one that is compared with them.
    candidates = CHECKPOINTS_KEPT + 2 if job.guard else 0
    needs = Needs(
        num_parameters=num_parameters,
        num_trained=0 if job.training.lora else num_parameters,  # adapters are small
        num_checkpoints=1 + (planned.num_steps - 1) // job.training.checkpoint_every_steps,
        num_models=1 + candidates,
        export_precision=job.export_precision,
        hands_on_masters=job.hands_on_masters,
        anchor_bytes=job.stage.anchor.most_bytes(planned.data.store.segment_counts) if job.stage.anchor else 0,
    )
    require_space(open_storage(job.checkpoints), job.stage_dir, needs)


def remove_working_files(planned: PlannedStage) -> None:
    """Remove the working files of a stage that has ended. Its checkpoints take 12 bytes per parameter each."""
    try:
        remove_checkpoints(open_storage(planned.job.checkpoints))
    except StorageError as error:
        console.print(f"checkpoints that are no longer needed were not removed: {error}", soft_wrap=True, markup=False)
    stage = planned.directory
    for leftover in (
        *(stage.checkpoints, stage.candidates, stage.anchor),
        *(stage.heartbeats, stage.stacks, stage.trial_export),
    ):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove_masters(plan: RunPlan) -> None:
    """Remove the master weights from which no further stage starts."""
    if plan.config.training.keep_masters:
        return
    for planned in plan.stages:
        if planned.is_trained and not planned.needs_masters:
            remove_tree(planned.directory.masters)  # whose name is free at once, so that no half of them counts
