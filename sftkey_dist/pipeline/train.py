"""Train what the strategies need, each stage once, and keep track."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from sftkey_dist.cluster import connected, require_shared_storage
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console
from sftkey_dist.errors import InterruptedRunError, StorageError
from sftkey_dist.files import read_json, write_json_atomically
from sftkey_dist.models.load import PROVENANCE
from sftkey_dist.models.shape import count_parameters
from sftkey_dist.monitor import follow_stage
from sftkey_dist.pipeline.changes import changes_in_words
from sftkey_dist.pipeline.finished import make_durable, note_model, verify_stages
from sftkey_dist.pipeline.prepare import write_configuration, write_provenance
from sftkey_dist.pipeline.records import forget_all_but, record_training
from sftkey_dist.pipeline.rounding import rounding_in_words
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.pipeline.track import ending_run, note_shared_stage, start_stage, start_strategy
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.sampler import count_trained
from sftkey_dist.tracking import Tracker
from sftkey_dist.training.checkpoint import CHECKPOINTS_KEPT, Needs, open_storage, remove_checkpoints, require_space
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.launch import StageRunner, stage_runner


def train(plan: RunPlan, tracker: Tracker) -> None:
    """Train every stage that is not finished; record which stages each strategy uses.

    Raises:
        TrainingError: a stage stopped. Its checkpoints stay, and the same command goes on from them.
        DataError: a finished stage's model is not what was written.
    """
    config, preparation = plan.config, plan.preparation
    verify_stages(plan)
    write_configuration(config, preparation)
    with ExitStack() as stack:
        if not plan.is_trained:
            write_provenance(preparation)
            stack.enter_context(connected(config.cluster, config.most_workers))
            stores = [store.path for store in preparation.stores.values()]
            require_shared_storage(plan.run.path, [*stores, preparation.model_dir])
            _require_fit(plan)
        runner = stack.enter_context(stage_runner(config.cluster, plan.run.ray_storage))
        for planned in plan.strategies:
            form, last = planned.strategy.form.value, planned.stages[-1]
            parent = start_strategy(config, plan.run, planned.name, form, last.digest, tracker)
            with ending_run(tracker, parent):
                for stage in planned.stages:
                    _ensure_trained(plan, stage, runner, tracker, parent)
            record_training(plan, planned, parent)
            _remove_masters(plan)
    forget_all_but(plan.run, [planned.name for planned in plan.strategies])


def _require_fit(plan: RunPlan) -> None:
    """Where there are accelerators: what counts their memory loads much of torch and transformers."""
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
        _clean_up(planned)
        if planned.shared_with:
            note_shared_stage(planned.stage.name, planned.digest, planned.shared_with, parent, tracker)
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
    for line in changes_in_words(plan.run, planned):
        console.print(f"{title}: {line}", soft_wrap=True)
    _require_space(planned)
    run_id = start_stage(
        config, plan.run, planned.strategy, planned.stage.name, planned.digest, planned.inputs, parent, tracker
    )
    store = planned.data.store
    left_out = len(store) - count_trained(store.segment_counts, planned.stage.weights)
    if left_out:
        console.print(f"{title}: {left_out:,} examples have no token that it trains and are left out")
    started = time.perf_counter()
    with ending_run(tracker, run_id):
        with (
            follow_stage(planned.directory, title, planned.num_steps, tracker, run_id),
            tracker.watching_system(run_id if config.tracking.system_metrics else None),
        ):
            signal_number = runner.run_stage(planned.job)
        summary = _write_summary(config, planned, time.perf_counter() - started)
        plan.verified.add(planned.digest)
        _clean_up(planned)
        if summary["guard"]:
            console.print(f"{title}: {_guard_in_words(summary)}")
        for line in rounding_in_words(summary):
            console.print(f"{title}: {line}", soft_wrap=True)
        tracker.log_artifact(run_id, planned.directory.summary)
    if signal_number is not None:
        raise InterruptedRunError(signal_number)


def _require_space(planned: PlannedStage) -> None:
    job = planned.job
    num_parameters = count_parameters(job.model_dir)
    # Those that a checkpoint may resume with, and the one that is compared with them.
    candidates = CHECKPOINTS_KEPT + 2 if job.guard else 0
    needs = Needs(
        num_parameters=num_parameters,
        num_trained=0 if job.training.lora else num_parameters,  # adapters are small
        num_checkpoints=1 + (planned.num_steps - 1) // job.training.checkpoint_every_steps,
        num_models=1 + candidates,
        export_precision=job.export_precision,
        hands_on_masters=job.hands_on_masters,
    )
    require_space(open_storage(job.checkpoints), job.stage_dir, needs)


def _clean_up(planned: PlannedStage) -> None:
    """A finished stage's model is what counts; its checkpoints would be 12 bytes a parameter each."""
    try:
        remove_checkpoints(open_storage(planned.job.checkpoints))
    except StorageError as error:
        console.print(f"checkpoints that nobody needs any more stay: {error}", soft_wrap=True, markup=False)
    stage = planned.directory
    for leftover in (stage.checkpoints, stage.candidates, stage.heartbeats, stage.trial_export):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove_masters(plan: RunPlan) -> None:
    """Those that no stage will start from any more."""
    if plan.config.training.keep_masters:
        return
    for planned in plan.stages:
        if planned.is_trained and not planned.needs_masters:
            shutil.rmtree(planned.directory.masters, ignore_errors=True)


def _write_summary(config: RunConfig, planned: PlannedStage, wall_seconds: float) -> dict[str, Any]:
    """Say in the model folder what it comes from, then, once all of it is on disk, mark the stage as finished."""
    write_json_atomically(planned.directory.model / PROVENANCE, planned.inputs)
    metrics, timings = read_records(planned.directory.metrics), read_records(planned.directory.timings)
    validation = read_records(planned.directory.validation)
    guard = _guard_summary(planned.job, validation)
    summary = {
        "digest": planned.digest,
        "inputs": planned.inputs,
        "steps": len(metrics),
        "tokens": sum(record["tokens"] for record in metrics),
        "loss_tokens": sum(record["loss_tokens"] for record in metrics),
        "train_seconds": sum(record["seconds"] for record in timings),
        "phase_seconds": _phases(timings),
        "collective_share": _collective_share(timings),
        "peak_memory_gib": max((record["peak_memory_gib"] for record in timings), default=0.0),
        "wall_seconds": wall_seconds,
        "world_size": timings[-1]["world_size"] if timings else config.cluster.num_workers,
        "events": [record["message"] for record in read_records(planned.directory.events)],
        "final_segments": metrics[-1]["segments"] if metrics else {},
        "rounding": read_json(planned.directory.rounding),
        "gain": _gain(guard, validation),
        "guard": guard,
        "model_files": {name: note.model_dump() for name, note in note_model(planned.directory).items()},
    }
    make_durable(planned.directory)
    write_json_atomically(planned.directory.summary, summary)
    return summary


def _gain(guard: Mapping[str, Any] | None, records: Sequence[Mapping[str, Any]]) -> float | None:
    """By how much the stage's loss on held-out examples fell, from its start to the model that it hands on."""
    losses = {record["step"]: record["validation"]["loss"] for record in records if "validation" in record}
    measured = {step: loss for step, loss in losses.items() if loss is not None}
    last = guard["kept_step"] if guard else max(measured, default=0)
    return float(measured[0] - measured[last]) if 0 in measured and last in measured else None


def _guard_summary(job: StageJob, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Which model the guard handed on, and the scores at the start, of it, and at the end of the stage."""
    if job.guard is None:
        return None
    scores = [(record["step"], record["guard"]["score"]) for record in records if "guard" in record]
    scored = [(step, math.nan if score is None else score) for step, score in scores]
    best = max(scored, key=lambda point: point[1])  # of equals the first
    kept = best if job.guard.settings.keep == "best" else scored[-1]
    return {
        "kept_step": kept[0],
        "kept_score": kept[1],
        "first_score": scored[0][1],
        "last_score": scored[-1][1],
        "evaluations": len(scored),
    }


def _guard_in_words(summary: Mapping[str, Any]) -> str:
    guard, phases = summary["guard"], summary["phase_seconds"]
    share = phases.get("guard", 0.0) / max(sum(phases.values()), 1e-9)
    return (
        f"guard kept the model after step {guard['kept_step']} of {summary['steps']}: held-out score "
        f"{guard['first_score']:.3f} at the start, {guard['kept_score']:.3f} kept, {guard['last_score']:.3f} at the "
        f"end; {guard['evaluations']} evaluations took {share:.0%} of the stage"
    )


def _collective_share(timings: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the micro-batches in which it was measured: the share of their time in which a collective ran."""
    measured = [record for record in timings if "collective_seconds" in record]
    if not measured:
        return None
    return float(sum(record["collective_seconds"] for record in measured) / sum(r["watched_seconds"] for r in measured))


def _phases(timings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of the whole stage by phase, longest first."""
    seconds: Counter[str] = Counter()
    for record in timings:
        seconds.update(record["phase_seconds"])
    return dict(seconds.most_common())
