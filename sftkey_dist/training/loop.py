"""The training loop of one stage, the same on every rank; knows neither Ray nor DeepSpeed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch import Tensor

from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.data.store import EncodedStore, hashes_of
from sftkey_dist.errors import TrainingError
from sftkey_dist.files import flush_those_there
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS, TIMINGS, StepMetrics, StepTiming
from sftkey_dist.sampler import StepPlan, StepPlanner
from sftkey_dist.training.checkpoint import CheckpointKeeper, Snapshot
from sftkey_dist.training.collate import PackedRow, pack
from sftkey_dist.training.collectives import CollectiveWatch
from sftkey_dist.training.engine import EngineSettings, ZeroEngine
from sftkey_dist.training.export import try_export
from sftkey_dist.training.heartbeat import Heartbeat
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.loss import loss_sums, segment_metrics
from sftkey_dist.training.masters import verify_masters
from sftkey_dist.training.observer import Observer
from sftkey_dist.training.planner import stage_planner
from sftkey_dist.training.resume import restore, start_from_masters
from sftkey_dist.training.schedule import learning_rate
from sftkey_dist.training.self_test import assert_head_comes_last, assert_packing_isolates, warn_of_a_slow_network
from sftkey_dist.training.step_timer import StepTimer
from sftkey_dist.training.stopwatch import Stopwatch

_EXAMPLES_NAMED = 8
_SEEDS = 2**32
"""That numpy's generator tells apart."""


def train_stage(job: StageJob, checkpoints: CheckpointKeeper) -> bool:
    """Train one stage from its model folder, or from its last checkpoint, and export the resulting model.

    Returns:
        Whether the stage is finished; when it was asked to stop, it is checkpointed instead.
    """
    directory, watch = StageDir(job.stage_dir), Stopwatch()
    rank = checkpoints.rank
    with Heartbeat(directory.heartbeat(rank), watch, job.training.collective_timeout_seconds) as heartbeat:
        return _train(job, directory, checkpoints, watch, heartbeat)


def _train(
    job: StageJob, directory: StageDir, checkpoints: CheckpointKeeper, watch: Stopwatch, heartbeat: Heartbeat
) -> bool:
    store = EncodedStore(job.store_dir)
    held_out = held_out_indices(store.hashes, job.validation.num_examples, job.seed, hashes_of(job.other_stores))
    if job.masters_dir is not None:
        verify_masters(job.masters_dir, checkpoints.rank, dist.get_world_size())
    engine = ZeroEngine(job.model_dir, engine_settings(job), job.masters_dir)
    planner = planner_of(job, store, engine, held_out)
    warn_of_a_slow_network(engine, directory)
    assert_packing_isolates(engine)
    if job.training.logit_chunk_positions:
        assert_head_comes_last(engine)
    try_export(engine, job)
    first_step = restore(engine, planner, checkpoints, directory)
    if first_step == 0:
        start_from_masters(engine, directory)
    journal = _Journal(directory, first_step) if engine.rank == 0 else None
    step_timer = StepTimer(engine, planner, job, store.segment_counts)
    collectives = CollectiveWatch(job.training.collectives_every_steps, engine.rank)
    observer = Observer(job, store, held_out, engine, first_step, watch, checkpoints)
    observer.observe(first_step, is_last=first_step == planner.num_steps)
    for step in range(first_step, planner.num_steps):
        if observer.wants_to_stop:
            break
        started, heartbeat.step = time.perf_counter(), step
        with watch.phase("data"):
            plan = planner.plan(step)
        rate = learning_rate(step, planner.num_steps, job.optimization)
        is_asked_to_stop = engine.rank == 0 and directory.stop_request.exists()
        record, stops = run_step(
            engine,
            store,
            plan,
            job,
            rate,
            watch,
            is_asked_to_stop=is_asked_to_stop,
            around_last_micro_batch=collectives.watching(step),
        )
        seconds = time.perf_counter() - started
        if journal is not None:
            journal.append_metrics(record)
        is_last = step + 1 == planner.num_steps
        stops = stops and not is_last
        if not stops:  # what is due is measured when the stage goes on
            observer.observe(step + 1, is_last=is_last)
        ends = is_last or observer.wants_to_stop  # saved too: writing the model may fail
        if stops or ends or (step + 1) % job.training.checkpoint_every_steps == 0:
            with watch.phase("checkpoint"):
                checkpoints.wait()  # two snapshots in memory would be one too many
                if engine.rank == 0:
                    flush_those_there(directory.journals)  # the checkpoint must not outlive the records of its steps
                checkpoints.save(Snapshot(engine, step + 1, plan.members_digest, observer.candidate))
        if journal is not None:
            journal.append_timings(step_timer.timing(plan, record, seconds, watch, collectives.take()))
        if stops:
            checkpoints.wait()
            return False
    checkpoints.wait()
    observer.hand_on()
    engine.close()
    return True


def run_step(
    engine: ZeroEngine,
    store: EncodedStore,
    plan: StepPlan,
    job: StageJob,
    step_learning_rate: float,
    watch: Stopwatch,
    *,
    is_asked_to_stop: bool = False,
    around_last_micro_batch: AbstractContextManager[None] | None = None,
) -> tuple[StepMetrics, bool]:
    """One optimizer step.

    Args:
        engine: of the stage.
        store: of the stage.
        plan: of the step.
        job: the stage.
        step_learning_rate: of the step.
        watch: charges phases with their time.
        is_asked_to_stop: whether this rank is.
        around_last_micro_batch: entered for the forward and backward pass of the last one.

    Returns:
        Its metrics, and whether any rank was asked to stop; equal on all ranks.

    Raises:
        TrainingError: loss or gradients are not finite (no rank has updated then), or ranks disagree on the plan.
    """
    # Dropout, where a model has any, depends on the step alone, so that a resumed stage draws the same.
    transformers.set_seed((job.seed + plan.step * engine.world_size + engine.rank) % _SEEDS)
    # What a stopped prefix holds has no logits to measure.
    observe_all = plan.step % job.training.segment_metrics_every_steps == 0 and not job.stop_gradient_prefix
    forward = engine.forward_behind_stopped_prefix if job.stop_gradient_prefix else engine.forward
    totals = torch.zeros(len(store.segment_names), 3, dtype=torch.float64)
    weighted_nll = torch.zeros(1, dtype=torch.float64)
    broken: list[int] = []
    with watch.phase("data"):
        rows = list(_rows(store, plan, job, engine.rank, observe_all))
    for index, row in enumerate(rows):
        is_last = index == len(rows) - 1
        with around_last_micro_batch if is_last and around_last_micro_batch else nullcontext():
            with watch.phase("forward"):
                row = row.to(engine.device)
                sums = loss_sums(forward(row), row, len(store.segment_names))
            with watch.phase("backward"):
                loss = sums.weighted_nll * (engine.world_size / plan.loss_weight)
                engine.backward(loss, ends_step=is_last)
        with watch.phase("backward"):
            totals += sums.by_segment.cpu()
            row_nll = sums.weighted_nll.detach().double().cpu()
            weighted_nll += row_nll
            if not torch.isfinite(row_nll):
                broken += plan.micro_batches(engine.rank)[index]
    with watch.phase("metrics"):
        weighted_nll, totals, stops = _reduce(engine, plan, weighted_nll, totals, is_asked_to_stop)
    mean_loss = float(weighted_nll) / plan.loss_weight
    if not np.isfinite(mean_loss):
        raise _loss_not_finite(mean_loss, engine.gather_to_all(broken), plan, store)
    with watch.phase("optimizer"):
        grad_norm = engine.step(step_learning_rate)
    if not np.isfinite(grad_norm):
        raise _gradient_not_finite(grad_norm, plan, store)
    record = StepMetrics(
        step=plan.step,
        epoch=plan.epoch,
        loss=mean_loss,
        learning_rate=step_learning_rate,
        grad_norm=grad_norm,
        tokens=sum(plan.segment_counts),
        loss_tokens=sum(n for n, weight in zip(plan.segment_counts, job.weights, strict=True) if weight > 0),
        balance=plan.balance.rounded(),
        segments=segment_metrics(store.segment_names, totals),
    )
    return record, stops


def _rows(store: EncodedStore, plan: StepPlan, job: StageJob, rank: int, observe_all: bool) -> Iterator[PackedRow]:
    for content in plan.micro_batches(rank):
        yield pack([store.example(index) for index in content], job.weights, observe_all)


def _reduce(
    engine: ZeroEngine, plan: StepPlan, weighted_nll: Tensor, totals: Tensor, is_asked_to_stop: bool
) -> tuple[Tensor, Tensor, bool]:
    """Sum metrics over ranks in one collective.

    The sum also carries the plan's digest, to catch ranks that disagree, and whether to stop, so that all stop at one
    step.
    """
    flags = torch.tensor([plan.layout_digest, is_asked_to_stop], dtype=torch.float64)
    reduced = engine.all_reduce_sum(torch.cat([weighted_nll, flags, totals.flatten()]))
    if float(reduced[1]) != plan.layout_digest * engine.world_size:
        raise TrainingError(f"ranks planned step {plan.step} differently; are code and data the same on all nodes?")
    return reduced[:1], reduced[3:].view_as(totals), bool(reduced[2])


def _loss_not_finite(
    loss: float, broken: Sequence[Sequence[int]], plan: StepPlan, store: EncodedStore
) -> TrainingError:
    """Name the ranks and the examples whose rows gave it."""
    where = "; ".join(
        f"rank {rank}: {', '.join(store.example_ids(indices[:_EXAMPLES_NAMED]))}"
        for rank, indices in enumerate(broken)
        if indices
    )
    return TrainingError(
        f"loss of step {plan.step} is {loss}; no weight was updated. It came from the rows with these examples: "
        f"{where}. Look at them, or lower optimization.learning_rate if it was rising before"
    )


def _gradient_not_finite(norm: float, plan: StepPlan, store: EncodedStore) -> TrainingError:
    """The loss was finite everywhere, so no rank stands out."""
    ids = ", ".join(store.example_ids(plan.example_indices[:_EXAMPLES_NAMED]))
    return TrainingError(
        f"gradient norm of step {plan.step} is {norm}, with a finite loss on every rank; no weight was updated. Lower "
        f"optimization.learning_rate, or look at the step's {len(plan.example_indices)} examples, the first of which "
        f"are {ids}"
    )


def engine_settings(job: StageJob) -> EngineSettings:
    """How the stage's model is loaded and optimised."""
    return EngineSettings(
        optimization=job.optimization,
        precision=job.precision,
        attention=job.attention,
        gradient_checkpointing=job.training.gradient_checkpointing,
        logit_chunk_positions=job.training.logit_chunk_positions,
        trust_remote_code=job.trust_remote_code,
        zero=job.training.zero,
        lora=job.training.lora,
        seed=job.seed,
        storage_timeout_seconds=job.training.storage_timeout_seconds,
    )


def planner_of(job: StageJob, store: EncodedStore, engine: ZeroEngine, held_out: np.ndarray) -> StepPlanner:
    """The steps of the stage, as every rank plans them."""
    return stage_planner(
        store.segment_counts,
        job.weights,
        job.optimization,
        seed=job.seed,
        micro_batch_tokens=job.training.micro_batch_tokens,
        data_ranks=engine.world_size,
        cost=engine.cost,
        held_out=held_out,
    )


class _Journal:
    """A stage's records; on resume, those of steps that will be run again are dropped."""

    def __init__(self, stage_dir: StageDir, first_step: int) -> None:
        self._metrics, self._timings = stage_dir.metrics, stage_dir.timings
        METRICS.keep(self._metrics, lambda record: record.step < first_step)
        TIMINGS.keep(self._timings, lambda record: record.step < first_step)

    def append_metrics(self, record: StepMetrics) -> None:
        """Before the step's checkpoint, so that a resumed stage lacks no step."""
        METRICS.append(self._metrics, [record])

    def append_timings(self, record: StepTiming) -> None:
        """After it, so that its cost is in."""
        TIMINGS.append(self._timings, [record])
