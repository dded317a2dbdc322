"""The training loop of one stage, the same on every rank; knows neither Ray nor DeepSpeed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch import Tensor

from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.data.store import EncodedStore, hashes_of
from sftkey_dist.errors import CheckpointError, TrainingError
from sftkey_dist.files import flush_those_there
from sftkey_dist.journal import append_event, append_records, keep_records
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler import StepPlan, StepPlanner
from sftkey_dist.training.bandwidth import SLOW_GB_PER_SECOND, all_gather_gb_per_second
from sftkey_dist.training.checkpoint import CheckpointKeeper, Snapshot, load_shards
from sftkey_dist.training.collate import PackedRow, pack
from sftkey_dist.training.collectives import CollectiveWatch
from sftkey_dist.training.engine import EngineSettings, ZeroEngine
from sftkey_dist.training.export import try_export
from sftkey_dist.training.flops import peak_flops_per_second, prefix_tokens
from sftkey_dist.training.heartbeat import Heartbeat
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.loss import NLL, loss_sums, segment_metrics, token_losses
from sftkey_dist.training.masters import verify_masters
from sftkey_dist.training.observer import Observer
from sftkey_dist.training.planner import stage_planner
from sftkey_dist.training.schedule import learning_rate
from sftkey_dist.training.stopwatch import Stopwatch

_EXAMPLES_NAMED = 8
_SEEDS = 2**32
"""That numpy's generator tells apart."""
_LOSS_TOLERANCE = 0.02
"""In nats; chunks may add up in another order, in bfloat16 too."""


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
    _warn_of_a_slow_network(engine, directory)
    assert_packing_isolates(engine)
    if job.training.logit_chunk_positions:
        assert_head_comes_last(engine)
    try_export(engine, job)
    first_step = _restore(engine, planner, checkpoints, directory)
    if first_step == 0:
        _start_from_masters(engine, directory)
    journal = _Journal(directory, first_step) if engine.rank == 0 else None
    clockwork = _Clockwork(engine, planner, job, store.segment_counts)
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
            journal.append_timings(clockwork.timing(plan, record, seconds, watch, collectives.take()))
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
) -> tuple[dict[str, Any], bool]:
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
    record = {
        "step": plan.step,
        "epoch": plan.epoch,
        "loss": mean_loss,
        "learning_rate": step_learning_rate,
        "grad_norm": grad_norm,
        "tokens": sum(plan.segment_counts),
        "loss_tokens": sum(n for n, weight in zip(plan.segment_counts, job.weights, strict=True) if weight > 0),
        "balance": {name: round(value, 4) for name, value in vars(plan.balance).items()},
        "segments": segment_metrics(store.segment_names, totals),
    }
    return record, stops


def assert_packing_isolates(engine: ZeroEngine) -> None:
    """Change the first example of a packed row: the second's logits must not move.

    Models differ in how they build masks; a leak would train quietly on other examples' text.

    Raises:
        TrainingError: they moved.
    """
    first, second = np.arange(1, 9) % engine.vocab_size, np.arange(11, 19) % engine.vocab_size
    segments = np.array([0] + [1] * 7)

    def second_logits(first_ids: np.ndarray) -> Tensor:
        row = pack([(first_ids, segments), (second, segments)], (0.0, 1.0), observe_all=False)
        return engine.logits_without_dropout(row.to(engine.device))[len(segments) - 1 :]

    change = (second_logits(first) - second_logits(first[::-1].copy())).abs().max()
    if float(change) > 1e-5:
        raise TrainingError(
            f"examples of a packed row see each other in this model (logits moved by {float(change):.2g}); "
            f"use model.attention=sdpa, and if that leaks too, the model cannot be trained packed"
        )


def assert_head_comes_last(engine: ZeroEngine) -> None:
    """Losses from inside the output projection must be those of the logits that the model returns.

    Some models scale or cap logits after their projection.

    Raises:
        TrainingError: they are not.
    """
    ids, segments = np.arange(1, 9) % engine.vocab_size, np.array([0] + [1] * 7)
    row = pack([(ids, segments)], (0.0, 1.0), observe_all=False).to(engine.device)
    inside, outside = engine.forward_without_dropout(row), token_losses(engine.logits_without_dropout(row), row.targets)
    difference = float((inside - outside)[:, NLL].abs().max())
    if difference > _LOSS_TOLERANCE:
        raise TrainingError(
            f"this model changes its logits after the output projection (losses from inside it are off by "
            f"{difference:.2g}); set training.logit_chunk_positions=null"
        )


def _rows(store: EncodedStore, plan: StepPlan, job: StageJob, rank: int, observe_all: bool) -> Iterator[PackedRow]:
    for content in plan.micro_batches(rank):
        yield pack([store.example(index) for index in content], job.weights, observe_all)


def _reduce(
    engine: ZeroEngine, plan: StepPlan, weighted_nll: Tensor, totals: Tensor, is_asked_to_stop: bool
) -> tuple[Tensor, Tensor, bool]:
    """Sum metrics over ranks in one collective.

    The plan's digest rides along to catch ranks that disagree, and whether to stop, so that all stop at one step.
    """
    riders = torch.tensor([plan.layout_digest, is_asked_to_stop], dtype=torch.float64)
    reduced = engine.all_reduce_sum(torch.cat([weighted_nll, riders, totals.flatten()]))
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


def _warn_of_a_slow_network(engine: ZeroEngine, directory: StageDir) -> None:
    """Between accelerators: what `sftkey plan` assumes of them, NCCL over TCP does not reach."""
    if engine.device.type != "cuda" or engine.world_size == 1:
        return
    rate = all_gather_gb_per_second(engine.device)
    if rate < SLOW_GB_PER_SECOND and engine.rank == 0:
        message = (
            f"ranks hand each other weights at {rate:.1f} GB/s, below the {SLOW_GB_PER_SECOND:g} of RDMA or NVLink; "
            f"see which transport NCCL took (cluster.environment={{NCCL_DEBUG: INFO}}), and launch/README.md"
        )
        append_event(directory.events, "slow_network", message)


def _start_from_masters(engine: ZeroEngine, directory: StageDir) -> None:
    unknown = engine.start_from_masters()
    if unknown and engine.rank == 0:
        message = (
            f"{unknown} weights start from their rounding to the compute precision: the folder stores them under other "
            f"names than the model has"
        )
        append_event(directory.events, "rounded_start", message)


def _restore(engine: ZeroEngine, planner: StepPlanner, checkpoints: CheckpointKeeper, directory: StageDir) -> int:
    """Load the newest checkpoint that is whole; returns the step to go on with.

    Raises:
        TrainingError: the checkpoint's last step had other examples than are planned now.
    """
    if engine.rank == 0:
        checkpoints.remove_torn()
    folders = engine.gather_to_all(checkpoints.newest_first())[0]
    for folder in folders:
        problems = [problem for problem in engine.gather_to_all(_problem(checkpoints, folder)) if problem]
        if not problems:
            return _load(engine, planner, checkpoints, folder)
        if engine.rank == 0:
            checkpoints.set_aside(folder, problems[0])
            message = f"checkpoint {folder} is damaged, the one before it is used: {problems[0]}"
            append_event(directory.events, "checkpoint_damaged", message)
    if folders and engine.rank == 0:
        message = "no checkpoint is whole: the stage starts over"
        append_event(directory.events, "started_over", message)
    return 0


def _problem(checkpoints: CheckpointKeeper, folder: str) -> str:
    """What this rank finds wrong with a checkpoint."""
    try:
        checkpoints.verify(folder, checkpoints.read_manifest(folder))
    except CheckpointError as error:
        return str(error)
    return ""


def _load(engine: ZeroEngine, planner: StepPlanner, checkpoints: CheckpointKeeper, folder: str) -> int:
    manifest = checkpoints.read_manifest(folder)
    if planner.plan(manifest.steps_done - 1).members_digest != manifest.members_digest:
        raise TrainingError(
            f"checkpoint {folder} was made by another order of the data; remove {checkpoints.storage.place} to train "
            f"the stage from its start"
        )
    load_shards(engine, checkpoints.storage, folder, manifest)
    return manifest.steps_done


class _Clockwork:
    """Wall-clock figures of rank 0, step by step."""

    def __init__(self, engine: ZeroEngine, planner: StepPlanner, job: StageJob, segment_counts: np.ndarray) -> None:
        self._engine, self._lengths = engine, planner.lengths
        self._flops = engine.flops
        self._prefixes = prefix_tokens(segment_counts, job.weights) if job.stop_gradient_prefix else None
        peak = peak_flops_per_second(engine.device, job.precision)
        self._peak_of_all = peak * engine.world_size if peak else None

    def timing(
        self,
        plan: StepPlan,
        record: dict[str, Any],
        seconds: float,
        watch: Stopwatch,
        collectives: dict[str, float],
    ) -> dict[str, Any]:
        """``seconds`` of the step; its phases, and of what followed it, in ``phase_seconds``."""
        members = plan.example_indices
        prefixes = None if self._prefixes is None else self._prefixes[members]
        flops = self._flops.of_step(self._lengths[members], record["loss_tokens"], prefixes)
        utilisation = {"mfu": flops / seconds / self._peak_of_all} if self._peak_of_all else {}
        return {
            "step": record["step"],
            "seconds": seconds,
            "tokens_per_second": record["tokens"] / seconds,
            "loss_tokens_per_second": record["loss_tokens"] / seconds,
            "model_tflops_per_second": flops / seconds / 1e12,
            **utilisation,
            **collectives,
            "phase_seconds": watch.take(),
            "world_size": self._engine.world_size,
            "peak_memory_gib": self._engine.peak_memory_bytes / 2**30,
        }


class _Journal:
    """A stage's records; on resume, those of steps that will be run again are dropped."""

    def __init__(self, stage_dir: StageDir, first_step: int) -> None:
        self._metrics, self._timings = stage_dir.metrics, stage_dir.timings
        for path in (self._metrics, self._timings):
            keep_records(path, lambda record: record["step"] < first_step)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Before the step's checkpoint, so that a resumed stage lacks no step."""
        append_records(self._metrics, [record])

    def append_timings(self, record: dict[str, Any]) -> None:
        """After it, so that its cost is in."""
        append_records(self._timings, [record])
