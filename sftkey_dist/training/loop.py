"""The training loop of one stage, the same on every rank; knows neither Ray nor DeepSpeed."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from torch import Tensor

from sftkey_dist.data.store import EncodedStore
from sftkey_dist.errors import TrainingError
from sftkey_dist.journal import append_records, keep_records
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler import StepPlan, StepPlanner
from sftkey_dist.training.checkpoint import load_checkpoint, write_checkpoint
from sftkey_dist.training.collate import PROMPT_ID, PackedRow, pack
from sftkey_dist.training.engine import EngineSettings, ZeroEngine
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.loss import CORRECT, COUNT, NLL, loss_sums
from sftkey_dist.training.planner import stage_planner
from sftkey_dist.training.schedule import learning_rate
from sftkey_dist.training.stopwatch import Stopwatch


class Checkpoints(Protocol):
    """Where checkpoints go and come from."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """The newest checkpoint of this stage as a local folder, or None."""
        ...

    def save(self, steps_done: int, write: Callable[[Path], None]) -> None:
        """Call ``write`` with a folder and keep what it wrote; returns when the checkpoint is committed."""
        ...


def train_stage(job: StageJob, checkpoints: Checkpoints) -> None:
    """Train one stage from its model folder, or from its last checkpoint, and export the resulting model."""
    store = EncodedStore(job.store_dir)
    engine = ZeroEngine(job.model_dir, _engine_settings(job))
    planner = _planner(job, store, engine)
    assert_packing_isolates(engine)
    first_step = _restore(engine, planner, checkpoints)
    journal = _Journal(StageDir(job.stage_dir), first_step) if engine.rank == 0 else None
    watch = Stopwatch()
    for step in range(first_step, planner.num_steps):
        started = time.perf_counter()
        with watch.phase("data"):
            plan = planner.plan(step)
        rate = learning_rate(step, planner.num_steps, job.optimization)
        record = run_step(engine, store, plan, job, rate, watch)
        if journal is not None:
            journal.append(record, _timing(engine, record, time.perf_counter() - started, watch))
        if (step + 1) % job.training.checkpoint_every_steps == 0 and step + 1 < planner.num_steps:
            with watch.phase("checkpoint"):
                _checkpoint(engine, checkpoints, plan)
    _export(engine, job)
    engine.close()


def run_step(
    engine: ZeroEngine,
    store: EncodedStore,
    plan: StepPlan,
    job: StageJob,
    step_learning_rate: float,
    watch: Stopwatch,
) -> dict[str, Any]:
    """One optimizer step; returns its metrics, equal on all ranks.

    Raises:
        TrainingError: loss or gradients are not finite (no rank has updated then), or ranks disagree on the plan.
    """
    # Dropout, where a model has any, depends on the step alone, so that a resumed stage draws the same.
    transformers.set_seed(job.seed + plan.step * engine.world_size + engine.rank)
    observe_all = plan.step % job.training.segment_metrics_every_steps == 0
    totals = torch.zeros(len(store.segment_names), 3, dtype=torch.float64)
    weighted_nll = torch.zeros(1, dtype=torch.float64)
    with watch.phase("data"):
        rows = list(_rows(store, plan, job, engine.rank, observe_all))
    for index, row in enumerate(rows):
        with watch.phase("forward"):
            row = row.to(engine.device)
            sums = loss_sums(engine.forward(row), row, len(store.segment_names))
        with watch.phase("backward"):
            loss = sums.weighted_nll * (engine.world_size / plan.loss_weight)
            engine.backward(loss, ends_step=index == len(rows) - 1)
            totals += sums.by_segment.cpu()
            weighted_nll += sums.weighted_nll.detach().double().cpu()
    with watch.phase("metrics"):
        weighted_nll, totals = _reduce(engine, plan, weighted_nll, totals)
    mean_loss = float(weighted_nll) / plan.loss_weight
    _require_finite(mean_loss, "loss", plan, store)
    with watch.phase("optimizer"):
        grad_norm = engine.step(step_learning_rate)
    _require_finite(grad_norm, "gradient norm", plan, store)
    return {
        "step": plan.step,
        "epoch": plan.epoch,
        "loss": mean_loss,
        "learning_rate": step_learning_rate,
        "grad_norm": grad_norm,
        "tokens": sum(plan.segment_counts),
        "loss_tokens": sum(n for n, weight in zip(plan.segment_counts, job.weights, strict=True) if weight > 0),
        "balance": {name: round(value, 4) for name, value in vars(plan.balance).items()},
        "segments": _segment_metrics(store.segment_names, totals),
    }


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
        return engine.forward_without_dropout(row.to(engine.device))[len(segments) - 1 :]

    change = (second_logits(first) - second_logits(first[::-1].copy())).abs().max()
    if float(change) > 1e-5:
        raise TrainingError(
            f"examples of a packed row see each other in this model (logits moved by {float(change):.2g}); "
            f"use model.attention=sdpa, and if that leaks too, the model cannot be trained packed"
        )


def _rows(store: EncodedStore, plan: StepPlan, job: StageJob, rank: int, observe_all: bool) -> Iterator[PackedRow]:
    for content in plan.micro_batches(rank):
        yield pack([store.example(index) for index in content], job.weights, observe_all)


def _reduce(engine: ZeroEngine, plan: StepPlan, weighted_nll: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Sum metrics over ranks in one collective; the plan's digest rides along to catch ranks that disagree."""
    digest = torch.tensor([plan.layout_digest], dtype=torch.float64)
    reduced = engine.all_reduce_sum(torch.cat([weighted_nll, digest, totals.flatten()]))
    if float(reduced[1]) != plan.layout_digest * engine.world_size:
        raise TrainingError(f"ranks planned step {plan.step} differently; are code and data the same on all nodes?")
    return reduced[:1], reduced[2:].view_as(totals)


def _segment_metrics(names: tuple[str, ...], totals: Tensor) -> dict[str, dict[str, float]]:
    """nll in nats per token, token accuracy and token count of every segment that was observed."""
    return {
        name: {
            "nll": float(totals[i, NLL] / totals[i, COUNT]),
            "token_accuracy": float(totals[i, CORRECT] / totals[i, COUNT]),
            "tokens": int(totals[i, COUNT]),
        }
        for i, name in enumerate(names)
        if i != PROMPT_ID and totals[i, COUNT] > 0
    }


def _require_finite(value: float, what: str, plan: StepPlan, store: EncodedStore) -> None:
    if np.isfinite(value):
        return
    ids = ", ".join(store.example_ids(plan.example_indices[:8]))
    raise TrainingError(
        f"{what} of step {plan.step} is {value}; no weight was updated. Lower optimization.learning_rate, or look at "
        f"the step's {len(plan.example_indices)} examples, the first of which are {ids}"
    )


def _engine_settings(job: StageJob) -> EngineSettings:
    return EngineSettings(
        optimization=job.optimization,
        precision=job.precision,
        attention=job.attention,
        gradient_checkpointing=job.training.gradient_checkpointing,
        trust_remote_code=job.trust_remote_code,
        zero=job.training.zero,
    )


def _planner(job: StageJob, store: EncodedStore, engine: ZeroEngine) -> StepPlanner:
    return stage_planner(
        store.segment_counts,
        job.weights,
        job.optimization,
        seed=job.seed,
        micro_batch_tokens=job.training.micro_batch_tokens,
        data_ranks=engine.world_size,
        cost=engine.cost,
    )


def _restore(engine: ZeroEngine, planner: StepPlanner, checkpoints: Checkpoints) -> int:
    """The step to go on with.

    Raises:
        TrainingError: the checkpoint's last step had other examples than are planned now.
    """
    with checkpoints.latest() as folder:
        if folder is None:
            return 0
        manifest = load_checkpoint(engine, folder)
    if planner.plan(manifest.steps_done - 1).members_digest != manifest.members_digest:
        raise TrainingError(
            f"the checkpoint after {manifest.steps_done} steps was made by another order of the data; remove "
            f"{folder.parent} to train the stage from its start"
        )
    return manifest.steps_done


def _checkpoint(engine: ZeroEngine, checkpoints: Checkpoints, plan: StepPlan) -> None:
    steps_done = plan.step + 1
    checkpoints.save(steps_done, lambda folder: write_checkpoint(engine, folder, steps_done, plan.members_digest))


def _export(engine: ZeroEngine, job: StageJob) -> None:
    folder = StageDir(job.stage_dir).model
    engine.save_pretrained(folder, job.end_of_turn_id)
    if engine.rank == 0:
        transformers.AutoTokenizer.from_pretrained(
            job.model_dir, trust_remote_code=job.trust_remote_code
        ).save_pretrained(folder)
    engine.barrier()


def _timing(engine: ZeroEngine, record: dict[str, Any], seconds: float, watch: Stopwatch) -> dict[str, Any]:
    """Wall-clock figures of rank 0; a checkpoint is charged to the step after it."""
    return {
        "step": record["step"],
        "seconds": seconds,
        "tokens_per_second": record["tokens"] / seconds,
        "loss_tokens_per_second": record["loss_tokens"] / seconds,
        "phase_seconds": watch.take(),
        "peak_memory_gib": engine.peak_memory_bytes / 2**30,
    }


class _Journal:
    """A stage's records; on resume, those of steps that will be run again are dropped."""

    def __init__(self, stage_dir: StageDir, first_step: int) -> None:
        self._paths = (stage_dir.metrics, stage_dir.timings)
        for path in self._paths:
            keep_records(path, lambda record: record["step"] < first_step)

    def append(self, *records: dict[str, Any]) -> None:
        for path, record in zip(self._paths, records, strict=True):
            append_records(path, [record])
