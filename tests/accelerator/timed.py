"""Steps of a stage, timed and weighed without what surrounds them: no checkpoint, no export."""

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sftkey_dist.capacity import find_accelerator, size_of
from sftkey_dist.capacity.memory import estimate_memory
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.models.shape import read_shape
from sftkey_dist.sampler import StepPlan
from sftkey_dist.training.diagnostics.collectives import CollectiveWatch
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.engine.factory import make_engine
from sftkey_dist.training.forward.flops import peak_flops_per_second
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.steps.step import run_step
from tests.accelerator.kernels import KernelWatch
from tests.accelerator.probe import synchronize

WARMUP_STEPS, PROFILED_STEPS = 2, 2
PREDICTED_FOR = "h100-80g"


def time_stages(jobs: Sequence[StageJob]) -> list[dict[str, Any]]:
    """The work of one rank: `_time_steps` of stages one after another."""
    return [_time_steps(job) for job in jobs]


def _time_steps(job: StageJob) -> dict[str, Any]:
    """Of a stage; its number of steps is how many are run: the first ones warm up, and the last two are profiled."""
    store, began = EncodedStore(job.store_dir), time.perf_counter()
    engine = make_engine(job)
    loading_seconds = time.perf_counter() - began
    stage = RunningStage(job, store, np.array([], dtype=np.int64), engine)
    planner = stage.planner()
    watch, collectives, kernels = Stopwatch(), CollectiveWatch(planner.num_steps, engine.rank), KernelWatch()
    seconds, tokens, flops, watched, logits = [], [], [], [], 0
    for step in range(planner.num_steps):
        plan = planner.plan(step)
        synchronize(engine.device.type)
        started = time.perf_counter()
        profiled = kernels.watching() if step == planner.num_steps - 2 else collectives.watching(step)
        record, _ = run_step(stage, plan, 1e-6, watch, around_last_micro_batch=profiled)
        synchronize(engine.device.type)
        seconds.append(time.perf_counter() - started)
        tokens.append(record.tokens)
        logits = max(logits, record.loss_tokens)
        lengths = planner.lengths[list(plan.example_indices)]
        flops.append(engine.flops.of_step(lengths, record.loss_tokens))
        watched.append(collectives.take())
        print(
            f"{job.stage_dir.name} step {step}: {tokens[-1]} tokens in {seconds[-1]:.3f} s", file=sys.stderr, flush=True
        )
    unwatched = range(WARMUP_STEPS, planner.num_steps - PROFILED_STEPS)
    rate = statistics.median(tokens[step] / seconds[step] for step in unwatched)
    flop_rate = statistics.median(flops[step] / seconds[step] for step in unwatched)
    peak = peak_flops_per_second(engine.device, job.precision)
    found = {
        "tokens_per_second": rate,
        "spread": [f(tokens[step] / seconds[step] for step in unwatched) for f in (min, max)],
        "model_tflops_per_second": flop_rate / 1e12,
        "mfu": flop_rate / peak if peak else None,
        "loading_seconds": loading_seconds,
        "step_seconds": statistics.median(seconds[step] for step in unwatched),
        "watch_cost_seconds": max((w.watch_cost_seconds for w in watched if w), default=None),
        **kernels.found,
        **_measured_memory(engine),
        **_largest_rows(job, store, [planner.plan(step) for step in range(planner.num_steps)], engine.data_rank),
    }
    engine.close()
    return found


def with_prediction(job: StageJob, found: dict[str, Any], world_size: int) -> dict[str, Any]:
    """What a rank found, beside what the capacity model says of it; outside of a process that partitions models.

    Compared are tensors: without what the process takes before it holds a weight, and what the allocator cannot use.
    """
    device = find_accelerator(PREDICTED_FOR).training_in(job.precision)
    size = size_of(read_shape(job.model_dir), job.training, device.compute_bytes)
    predicted = estimate_memory(
        size, job.training, device, world_size, found["row_tokens"], found["positions_with_loss"]
    ).parts
    tensors = sum(gib for name, gib in predicted.items() if name not in ("process", "allocator's margin"))
    found |= {
        "predicted_parts_gib": {name: round(gib, 2) for name, gib in predicted.items()},
        "predicted_tensors_gib": tensors,
    }
    if "allocated_gib" in found:
        found["predicted_over_measured"] = tensors / found["allocated_gib"]
    return found


def _largest_rows(job: StageJob, store: EncodedStore, plans: list[StepPlan], rank: int) -> dict[str, int]:
    """Most tokens of a packed row, and most positions of one that carry loss."""
    counts = np.asarray(store.segment_counts)
    lengths, weighted = counts.sum(axis=1), counts[:, np.array(job.stage.weights) > 0].sum(axis=1)
    rows = [list(row) for plan in plans for row in plan.micro_batches(rank)]
    return {
        "row_tokens": max(int(lengths[row].sum()) for row in rows),
        "positions_with_loss": max(int(weighted[row].sum()) for row in rows),
    }


def _measured_memory(engine: Engine) -> dict[str, float]:
    if engine.device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    return {
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
        # What the device has lost beside torch's own memory: contexts, libraries, kernels.
        "process_gib": (total - free - reserved) / 2**30,
    }
