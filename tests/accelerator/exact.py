"""Every layout in bfloat16 and in float32 against float32 on one CPU rank."""

import gc
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from sftkey_dist.config.training import LoraConfig, ZeroConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.training.job import StageJob
from tests.accelerator.material import KEY, stage, tiny_model
from tests.accelerator.ranks import on_ranks, this_device
from tests.distributed.harness import make_store, metrics, train

LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-3}
NORM_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
STEPS, STOPPED_AFTER = 6, 3
PARTITIONED = ZeroConfig(max_gathered_gib=0)
LAYOUTS: dict[str, dict[str, Any]] = {
    "gathered": {},
    "partitioned": {"zero": PARTITIONED},
    "recomputed": {"gradient_checkpointing": True},
    "recomputed from the host": {"gradient_checkpointing": True, "offload_activations": True},
    "chunked blocks": {"mlp_chunk_tokens": 100},
    "chunked logits": {"logit_chunk_positions": 16},
    "example by example": {"attention": "packed_sdpa"},
    "dense mask": {"attention": "sdpa"},
    "offloaded": {"zero": ZeroConfig(offload="cpu", max_gathered_gib=0)},
    "offloaded with weights": {"zero": ZeroConfig(offload="cpu", offload_weights=True, max_gathered_gib=0)},
    "stopped prefix": {"stop_gradient_prefix": True},
    "adapters": {"lora": LoraConfig(rank=4, alpha=8.0)},
    "decomposed adapters": {"lora": LoraConfig(rank=4, alpha=8.0, weight_decomposed=True)},
}
OTHER_OBJECTIVES = ("stopped prefix", "adapters", "decomposed adapters")
"""Compared with themselves in float32; all others with the gathered layout."""
SEVERAL_RANKS: dict[str, dict[str, Any]] = {
    "secondary partitions": {"zero": ZeroConfig(max_gathered_gib=0, secondary_partition_ranks=2)},
    "parts of rows": {"sequence_parallel_ranks": 2},
}
MEMORY_LEFT_BYTES = 2**20


def measure(scratch: Path, *, tiny: bool) -> dict[str, Any]:
    """Largest deviations of loss and gradient norm over a stage's steps, layout by layout."""
    del tiny  # the shapes are tiny always
    return compare(scratch, world_size=1, layouts=LAYOUTS)


def compare(
    scratch: Path,
    *,
    world_size: int,
    layouts: dict[str, dict[str, Any]],
    precisions: tuple[str, ...] = ("float32", "bfloat16"),
    resumed_on: int | None = None,
) -> dict[str, Any]:
    """
    Args:
        scratch: folder to work in.
        world_size: ranks on this device; the reference runs on one CPU rank.
        layouts: settings of a stage by name; `gathered` is among them.
        precisions: to train each in; bfloat16 is among them.
        resumed_on: ranks that an interrupted stage goes on with; by default as many as began it.
    """
    device = this_device()
    model = tiny_model(scratch / "model", hidden_size=32)
    store = make_store(scratch / "store", ResponseContract(), model)

    def job(name: str, precision: str, settings: dict[str, Any], where: str) -> StageJob:
        return stage(
            scratch / where / f"{name}-{precision}".replace(" ", "-"),
            model,
            store,
            KEY if name == "stopped prefix" else (0.0, *[1.0] * (len(KEY) - 1)),
            precision=precision,
            micro_batch_tokens=700,
            checkpoint_every_steps=STOPPED_AFTER,
            optimization={"global_batch_size": 8, "num_epochs": 9, "max_steps": STEPS, "learning_rate": 1e-3},
            **settings,
        )

    references = {
        name: job(name, "float32", layouts.get(name, {}), "reference")
        for name in ("gathered", *OTHER_OBJECTIVES)
        if name == "gathered" or name in layouts
    }
    on_ranks(1, "cpu", train, list(references.values()))
    jobs = {
        (name, precision): job(name, precision, settings, device)
        for name, settings in layouts.items()
        for precision in precisions
    }
    trained = on_ranks(world_size, device, train_and_look, list(jobs.values()))
    problems = dict(zip(jobs, map(_first_of, zip(*(rank["problems"] for rank in trained), strict=True)), strict=True))
    left = max(rank["bytes_left"] for rank in trained)
    resumed = job("gathered", "bfloat16", {}, "resumed")
    on_ranks(world_size, device, train, [resumed], STOPPED_AFTER)
    on_ranks(resumed_on or world_size, device, train, [resumed])
    rows = [
        {"layout": name, "precision": precision, "problem": problems[name, precision], "passed": False}
        if problems[name, precision]
        else deviation(name, precision, job, references.get(name, references["gathered"]))
        for (name, precision), job in jobs.items()
    ]
    whole = jobs["gathered", "bfloat16"]
    return {
        "layouts": rows,
        "resumed": largest_deviation(metrics(resumed), metrics(whole), "loss"),
        "bytes_left_after_closing": left,
        "passed": all(row["passed"] for row in rows) and left < MEMORY_LEFT_BYTES,
    }


def train_and_look(jobs: list[StageJob]) -> dict[str, Any]:
    """Train stages; returns what is wrong with each, "" if nothing, and the accelerator's bytes that are left."""
    problems = [_problem_of(job) for job in jobs]
    gc.collect()
    return {"problems": problems, "bytes_left": _bytes_left()}


def _problem_of(job: StageJob) -> str:
    """A layout that fails must not cost the others their figures, for which there may be no second day."""
    try:
        train([job])
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def _bytes_left() -> int:
    if not torch.cuda.is_available():
        return 0
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()  # they live as long as the process, whatever is closed
    return torch.cuda.memory_allocated()


def _first_of(problems: Iterable[str]) -> str:
    return next(filter(None, problems), "")


def deviation(name: str, precision: str, job: StageJob, reference: StageJob) -> dict[str, Any]:
    """Of a layout from its reference."""
    loss, norm = (largest_deviation(metrics(job), metrics(reference), key) for key in ("loss", "grad_norm"))
    passed = loss <= LOSS_TOLERANCE[precision] and norm <= NORM_TOLERANCE[precision]
    return {"layout": name, "precision": precision, "loss": loss, "grad_norm": norm, "passed": passed}


def largest_deviation(records: list[dict[str, Any]], expected: list[dict[str, Any]], key: str) -> float:
    """Relative, over all steps."""
    pairs = zip(records, expected, strict=True)
    return max(abs(one[key] - other[key]) / abs(other[key]) for one, other in pairs)
