"""The training loop of one stage, the same on every rank; knows neither Ray nor DeepSpeed."""

import time

import torch.distributed as dist

from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.data.store import EncodedStore, hashes_of
from sftkey_dist.files import flush_those_there
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS, TIMINGS, StepMetrics, StepTiming
from sftkey_dist.sampler import StepPlanner
from sftkey_dist.training.checkpoint import CheckpointKeeper, Snapshot
from sftkey_dist.training.diagnostics.collectives import CollectiveWatch
from sftkey_dist.training.diagnostics.heartbeat import Heartbeat
from sftkey_dist.training.diagnostics.self_test import (
    assert_packing_isolates,
    assert_parts_equal_rows,
    warn_of_a_slow_network,
)
from sftkey_dist.training.diagnostics.step_timer import StepTimer
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.diagnostics.tracer import StepTracer
from sftkey_dist.training.engine.factory import make_engine
from sftkey_dist.training.engine.store_collectives import StoreCollectives
from sftkey_dist.training.export import try_export
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.resume import restore, start_from_masters
from sftkey_dist.training.steps.anchoring import with_start_predictions
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.steps.schedule import learning_rate
from sftkey_dist.training.steps.step import run_step
from sftkey_dist.training.validation.observer import Observer
from sftkey_dist.training.weights.masters import verify_masters


def train_stage(job: StageJob, checkpoints: CheckpointKeeper) -> bool:
    """Train one stage from its model folder, or from its last checkpoint, and export the resulting model.

    Returns:
        Whether the stage is finished; when it was asked to stop, it is checkpointed instead.

    Raises:
        ModelError: the model cannot be loaded, computed with, or saved.
        TrainingError: the stage cannot go on; what was trained up to the last checkpoint is kept.
    """
    watch, rank = Stopwatch(), checkpoints.rank
    timeout = job.training.collective_timeout_seconds
    with Heartbeat(StageDir(job.stage_dir), rank, watch, timeout) as heartbeat:
        stage = _load(job, rank)
        planner = stage.planner()
        _test_before_training(stage)
        first_step = _restore_or_start(stage, planner, checkpoints)
        anchored = with_start_predictions(stage, planner, first_step, watch)
        if anchored is None:
            return False
        stage = anchored
        is_finished = _train(stage, planner, first_step, checkpoints, watch, heartbeat)
        if is_finished:
            stage.close()
        return is_finished


def _load(job: StageJob, rank: int) -> RunningStage:
    store = EncodedStore(job.store_dir)
    held_out = held_out_indices(store.hashes, job.validation.num_examples, job.seed, hashes_of(job.other_stores))
    if job.masters_dir is not None:
        verify_masters(job.masters_dir, rank, dist.get_world_size())
        # Loading begins with collectives, in which nobody waits for as long as reading may take.
        StoreCollectives(job.training.storage_timeout_seconds).gather("")
    return RunningStage(job, store, held_out, make_engine(job))


def _test_before_training(stage: RunningStage) -> None:
    """Find what would spoil the stage before its first step."""
    warn_of_a_slow_network(stage.engine, stage.directory)
    assert_packing_isolates(stage.engine)
    assert_parts_equal_rows(stage.engine)
    try_export(stage.engine, stage.job)
    if stage.job.stage.interpolate:
        stage.engine.weights.require_known_start()


def _restore_or_start(stage: RunningStage, planner: StepPlanner, checkpoints: CheckpointKeeper) -> int:
    """Set the engine to where the stage begins; returns its first step."""
    first_step = restore(stage.engine, planner, checkpoints, stage.directory)
    if first_step == 0:
        start_from_masters(stage.engine, stage.directory)
    return first_step


def _train(
    stage: RunningStage,
    planner: StepPlanner,
    first_step: int,
    checkpoints: CheckpointKeeper,
    watch: Stopwatch,
    heartbeat: Heartbeat,
) -> bool:
    """Run the steps that are left, and write the stage's result; returns whether the stage is finished."""
    job, is_first_rank = stage.job, stage.engine.rank == 0
    journal = _Journal(stage.directory, first_step) if is_first_rank else None
    step_timer = StepTimer(stage, planner.lengths)
    collectives = CollectiveWatch(job.training.collectives_every_steps, stage.engine.rank)
    tracer = StepTracer(job.training.profile_steps, stage.directory, stage.engine.rank)
    observer = Observer(stage, first_step, watch, checkpoints)
    observer.observe(first_step, is_last=first_step == planner.num_steps)
    steps_done = first_step
    for step in range(first_step, planner.num_steps):
        if observer.wants_to_stop:
            break
        started, heartbeat.step = time.perf_counter(), step
        with watch.phase("data"):
            plan = planner.plan(step)
        with tracer.tracing(step):
            record, stops = run_step(
                stage,
                plan,
                learning_rate(step, planner.num_steps, job.stage.optimization),
                watch,
                is_asked_to_stop=is_first_rank and stage.directory.stop_request.exists(),
                around_last_micro_batch=None if tracer.traces(step) else collectives.watching(step),
            )
        seconds = time.perf_counter() - started
        heartbeat.peak_memory_gib = stage.engine.peak_memory_bytes / 2**30
        if journal is not None:
            journal.append_metrics(record)
        is_last = step + 1 == planner.num_steps
        stops = stops and not is_last
        if not stops:  # a stage that stops here is measured after this step when it resumes
            observer.observe(step + 1, is_last=is_last)
        ends = is_last or observer.wants_to_stop  # checkpointed too, in case exporting the model fails
        if stops or ends or (step + 1) % job.training.checkpoint_every_steps == 0:
            with watch.phase("checkpoint"):
                checkpoints.wait()  # before another snapshot takes memory
                # Rank 0 also waits for the shards of all, longer than a collective may.
                stage.engine.store_collectives.gather("")
                if is_first_rank:
                    flush_those_there(stage.directory.journals)  # no checkpoint outlives the records of its steps
                checkpoints.save(Snapshot(stage.engine.state, step + 1, plan.members_digest, observer.candidate))
        if journal is not None:
            journal.append_timings(step_timer.timing(plan, record, seconds, watch, collectives.take()))
        if stops:
            checkpoints.wait()
            return False
        steps_done = step + 1
    checkpoints.wait()
    stage.engine.wait_for_first_rank()  # it commits the checkpoint, which an error of another rank below would end
    observer.interpolate(steps_done)
    observer.hand_on()
    return True


class _Journal:
    """A stage's records; on resume, those of steps that will be run again are dropped."""

    def __init__(self, stage_dir: StageDir, first_step: int) -> None:
        self._metrics, self._timings = stage_dir.metrics, stage_dir.timings
        METRICS.keep(self._metrics, lambda record: record.step < first_step)
        TIMINGS.keep(self._timings, lambda record: record.step < first_step)

    def append_metrics(self, record: StepMetrics) -> None:
        """Append before the step's checkpoint, so that a resumed stage lacks no step."""
        METRICS.append(self._metrics, [record])

    def append_timings(self, record: StepTiming) -> None:
        """Append after the step's checkpoint, so that its cost is in."""
        TIMINGS.append(self._timings, [record])
