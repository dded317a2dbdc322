"""Run the sides in turn and publish the ratios: ``python -m tests.benchmarks.throughput``."""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftkey_dist.training.allocator import CPU_ALLOCATOR
from tests.benchmarks.figures import Figure, arguments, console, median_of, memory_gib, publish
from tests.benchmarks.throughput.task import Task, as_argument, call_in_material

MODELS = ("smollm2", "qwen-tied", "qwen-untied")
FLOPS_PER_WEIGHT_AND_TOKEN = 6
HALF_BILLION_NEEDS_GIB = {"tied": 23, "untied": 28}
"""Both ranks together, by the embeddings; the second was killed in 24, and is otherwise an estimate."""
HALF_BILLION: dict[str, Any] = {
    "global_batch_size": 8,
    "row_tokens": 512,
    "peer_micro_batch_size": 2,
    "logit_chunk_positions": 128,
    "reduce_bucket_elements": 5_000_000,
}
"""What differs from the smaller model's task."""


def main() -> None:
    options = arguments(__doc__ or "", _options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = in_a_process_of_its_own("prepare", options.data, options.model, folder / "store")
        smollm2 = Task(
            model_dir=str(options.model.absolute()),
            store_dir=str(store),
            stage="full",
            global_batch_size=32,
            row_tokens=2048,
            peer_micro_batch_size=4,
            warmup_steps=1,
            num_steps=2 if options.quick else 3,
        )
        figures = {}
        if "smollm2" in options.models:
            figures |= measure("SmolLM2-135M", smollm2, 1 if options.quick else options.rounds)
        for embeddings, needed_gib in HALF_BILLION_NEEDS_GIB.items():
            name = f"qwen-{embeddings}"
            if name not in options.models:
                continue
            if memory_gib() < needed_gib:
                console.print(f"{name}: needs about {needed_gib} GiB of memory, here are {memory_gib():.0f}; left out")
                continue
            model = in_a_process_of_its_own("make_half_billion", folder / name, options.model, embeddings == "tied")
            task = replace(smollm2, model_dir=str(model), **HALF_BILLION)
            figures |= measure(f"0.5B {embeddings}", task, 1)
            shutil.rmtree(model)
    publish("Throughput, non-padding tokens", figures, options.json)


def measure(name: str, task: Task, rounds: int) -> dict[str, Figure]:
    """All sides and both stages in turn, so that a noisy machine hits all alike."""
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for stage in ("full", "key"):
            for side in ("ours", "peer", "bare"):
                result = run_side(side, replace(task, stage=stage))
                results.setdefault((side, stage), []).append(result)
                speed = statistics.median(result["tokens_per_second"])
                console.print(f"{name} {stage} {side}: {speed:.0f} tokens/s, {result['peak_memory_gib']:.1f} GiB")
    return figures_of(name, results)


def in_a_process_of_its_own(function: str, *arguments: Any) -> Any:
    """What a function of `material` returns; its imports take no memory from the sides."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(call_in_material, function, *arguments).result()


def figures_of(name: str, results: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Figure]:
    speeds = {key: [statistics.median(r["tokens_per_second"]) for r in found] for key, found in results.items()}

    def ratio(side: tuple[str, str], other: tuple[str, str], goal: str) -> Figure:
        pairs = zip(speeds[side], speeds[other], strict=True)
        return median_of([a / b for a, b in pairs], "x", goal, f"{other[0]} {other[1]}")

    figures = {f"{name}: {side} {stage}": median_of(found, "tokens/s") for (side, stage), found in speeds.items()} | {
        f"{name}: {side} {stage} memory": median_of([r["peak_memory_gib"] for r in found], "GiB a rank")
        for (side, stage), found in results.items()
    }
    limit = results["bare", "full"]
    flops = [
        FLOPS_PER_WEIGHT_AND_TOKEN * r["num_weights"] * v for r, v in zip(limit, speeds["ours", "full"], strict=True)
    ]
    shares = [f / r["gemm_flops_per_second"] for f, r in zip(flops, limit, strict=True)]
    return figures | {
        f"{name}: stage 1 ours / TRL": ratio(("ours", "full"), ("peer", "full"), ">= 2.4"),
        f"{name}: stage 2 ours / TRL": ratio(("ours", "key"), ("peer", "key"), ">= 3.0"),
        f"{name}: stage 1 ours / limit": ratio(("ours", "full"), ("bare", "full"), ">= 0.90"),
        f"{name}: stage 2 ours / limit": ratio(("ours", "key"), ("bare", "key"), ">= 0.90"),
        f"{name}: stage 1 model FLOP/s / GEMM peak": median_of(shares, "", ">= 0.65", "float32 GEMM, all cores"),
        f"{name}: stage 2 / stage 1 time a token": ratio(("ours", "full"), ("ours", "key"), "<= 0.75"),
        f"{name}: stage 2 logits / full logits": median_of(
            [r["logits_share"] for r in results["ours", "key"]], "of positions", "<= 0.03"
        ),
    }


def run_side(side: str, task: Task) -> dict[str, Any]:
    """One side in processes of its own; ours and the limit with the allocator settings that our launcher gives."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", f"tests.benchmarks.throughput.{side}", as_argument(task), file.name]
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"} | ({} if side == "peer" else CPU_ALLOCATOR)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{side} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(Path(file.name).read_text())
        return result


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/gsm8k"), help="folder with train.jsonl")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="which to measure")
    parser.add_argument("--rounds", type=int, default=1, help="times that every side runs")


if __name__ == "__main__":
    main()
