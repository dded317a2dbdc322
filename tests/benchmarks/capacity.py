"""Estimates against measurements on this machine, and what larger shapes take on clusters nobody rented.

``python -m tests.benchmarks.capacity``; with ``--table`` the larger shapes alone, in seconds.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.distributed as dist
import transformers
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from sftkey_dist.capacity import (
    ACCELERATORS,
    Accelerator,
    Cluster,
    Estimate,
    ModelSize,
    StageLoad,
    estimate,
    size_of,
    stage_load,
)
from sftkey_dist.capacity.hardware import GIB
from sftkey_dist.capacity.host import estimate_export
from sftkey_dist.capacity.speed import Rows
from sftkey_dist.config import load_config
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.models.shape import decoder_cost, read_shape
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.sampler import mean_attended_pairs
from sftkey_dist.strategy import Stage
from sftkey_dist.training.allocator import CPU_ALLOCATOR
from sftkey_dist.training.job import StageJob
from tests.benchmarks.figures import Figure, arguments, console, publish
from tests.benchmarks.machine import this_machine
from tests.distributed.harness import run_ranks, train

LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False}
QWEN = {"num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False}
SHAPES = {
    "8B (Qwen3)": transformers.Qwen3Config(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        vocab_size=151936,
        **QWEN,
    ),
    "32B (Qwen2.5)": transformers.Qwen2Config(
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        vocab_size=152064,
        **QWEN,
    ),
    "70B (Llama 3.1)": transformers.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, **LLAMA
    ),
    "405B (Llama 3.1)": transformers.LlamaConfig(
        hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128, **LLAMA
    ),
}
MIXTURES = {
    "30B-A3B (Qwen3)": transformers.Qwen3MoeConfig(
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        vocab_size=151936,
        tie_word_embeddings=False,
    ),
    "120B-A5B (gpt-oss)": transformers.GptOssConfig(
        hidden_size=2880,
        intermediate_size=2880,
        num_hidden_layers=36,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        num_local_experts=128,
        num_experts_per_tok=4,
        vocab_size=201088,
        tie_word_embeddings=False,
    ),
}
LONG_ROWS = {"8B (Qwen3)": 1, "32B (Qwen2.5)": 2, "70B (Llama 3.1)": 4, "30B-A3B (Qwen3)": 2, "120B-A5B (gpt-oss)": 8}
"""Numbers of nodes."""
EXPORTING = {"8B (Qwen3)": 1, "70B (Llama 3.1)": 4, "120B-A5B (gpt-oss)": 8, "405B (Llama 3.1)": 128}
"""Numbers of nodes."""
LONG_TOKENS, SHARING = 32_768, (1, 2, 4, 8)
NODES, ALL_NODES = (1, 4, 16, 64), (1, 2, 4, 8, 16, 32, 64, 128)
EXAMPLES_PER_RANK = 64
LARGE = TrainingConfig(micro_batch_tokens=8192, gradient_checkpointing=True)
STAGES = {"stage 1": (0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), "stage 2": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)}
MEASURED = {
    "20 M": "{hidden_size: 384, intermediate_size: 1152, num_layers: 8, num_heads: 6, num_kv_heads: 3}",
    "60 M": "{hidden_size: 640, intermediate_size: 1920, num_layers: 12, num_heads: 10, num_kv_heads: 5}",
    "135 M": "{hidden_size: 768, intermediate_size: 2304, num_layers: 18, num_heads: 12, num_kv_heads: 6}",
}
ROW_TOKENS = 2048
RANKS = 2


def main() -> None:
    options = arguments(__doc__ or "", _options)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if not options.table:
            figures |= against_measurements(Path(scratch), options.quick)
        if options.table:
            console.print(long_rows())
            console.print(exports())
        if not options.quick:
            counts = gsm8k_counts(Path(scratch), options.model, options.data)
            console.print(large_shapes(counts))
            figures |= weak_scaling(counts)
    publish("Capacity", figures, options.json)


def against_measurements(scratch: Path, quick: bool) -> dict[str, Figure]:
    """Predicted over measured, of tensors' memory and step time, for three shapes on two ranks of this machine."""
    os.environ |= CPU_ALLOCATOR  # read when the ranks' first process starts, here as under the launcher
    device = this_machine(RANKS)
    console.print(
        f"a core beside another: products {1000 * device.peak_tflops:.0f} GFLOP/s, attention "
        f"{1000 * device.peak_tflops * device.attention_efficiency:.0f} GFLOP/s, everything else "
        f"{device.memory_gb_per_second:.1f} GB/s, gradients {device.link_gb_per_second:.2f} GB/s"
    )
    memory, seconds = {}, {}
    for name, shape in list(MEASURED.items())[: 1 if quick else None]:
        run = scratch / name.replace(" ", "")
        settings = [
            f"run_dir={run}",
            f"data.store_dir={scratch / 'store'}",
            f"model.embedded={shape}",
            "strategies=[sft-tag]",
            "validation={num_examples: 0, guard: null}",
            "tracking.enabled=false",
            "optimization.global_batch_size=32",
            f"training.micro_batch_tokens={ROW_TOKENS}",
        ]
        predicted, taken = predict(settings, device), step_seconds(settings)
        tensors = tensor_gib([*settings, f"run_dir={run}-tensors"])
        memory[name], seconds[name] = predicted.memory.total_gib / tensors, predicted.seconds.total / taken
        console.print(
            f"{name}: tensors {tensors:.2f} GiB, predicted {memory[name]:.3f} of it; a step {taken:.2f} s, predicted "
            f"{seconds[name]:.3f} of it"
        )
    return {
        "memory of tensors, predicted / measured: furthest from 1": furthest(memory, "<= 0.1"),
        "step time, predicted / measured: furthest from 1": furthest(seconds, "<= 0.2"),
    }


def step_seconds(settings: list[str]) -> float:
    """The median of the seconds of a step, from the third on.

    Without Ray, whose processes would share the ranks' cores.
    """
    job = job_of([*settings, "optimization.max_steps=4"])
    run_ranks(RANKS, train, [job])
    timings = read_records(StageDir(job.stage_dir).timings)
    return statistics.median(timing["seconds"] for timing in timings[2:])


def tensor_gib(settings: list[str]) -> float:
    """Most memory that rank 0's tensors take in two steps, in GiB.

    A process takes more: the libraries, and what the C library's allocator does not give back.
    """
    job = job_of([*settings, "optimization.max_steps=2"])
    trace = Path(job.stage_dir).parent / "trace.json"
    run_ranks(RANKS, train_and_trace, job, trace)
    events = json.loads(trace.read_bytes())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]") / GIB


def job_of(settings: list[str]) -> StageJob:
    """A run's only stage."""
    config = load_config([Path("configs/quickstart.yaml")], settings)
    (stage,) = plan_run(config, prepare(config)).stages
    return stage.job


def train_and_trace(job: StageJob, trace: Path) -> None:
    """The work of one rank, every allocation noted."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train([job])
    if dist.get_rank() == 0:
        profiler.export_chrome_trace(str(trace))


def furthest(ratios: dict[str, float], goal: str) -> Figure:
    """How wrong the worst is; the ratios are its spread."""
    spread = (min(ratios.values()), max(ratios.values()))
    return Figure(max(abs(ratio - 1) for ratio in ratios.values()), "", goal, spread, ", ".join(ratios))


def predict(settings: list[str], device: Accelerator) -> Estimate:
    """The estimate for a run on this machine."""
    config = load_config([Path("configs/quickstart.yaml")], settings)
    preparation = prepare(config)
    shape = read_shape(preparation.model_dir)
    ((store,), strategy) = preparation.stores.values(), preparation.strategies[0]
    counts = np.asarray(store.segment_counts)
    load = load_of(counts, strategy.stages[0].weights, config.optimization, shape)
    return estimate(
        size_of(shape, config.training, device.compute_bytes), config.training, Cluster(1, RANKS, device), load
    )


def load_of(
    counts: np.ndarray, weights: tuple[float, ...], optimization: OptimizationConfig, shape, most_steps: int = 8
) -> StageLoad:
    """The work of a stage on these examples."""
    stage, cost = Stage("stage", weights, optimization), decoder_cost(shape)
    return stage_load(
        "stage",
        counts,
        weights,
        lambda ranks, tokens: stage.planner(counts, seed=0, micro_batch_tokens=tokens, data_ranks=ranks, cost=cost),
        most_steps,
        window=cost.window,
    )


def gsm8k_counts(scratch: Path, model: Path, data: Path) -> np.ndarray:
    """Tokens of each segment of GSM8K's examples."""
    config = load_config(
        [Path("configs/gsm8k.yaml"), Path("configs/models/smollm2_135m.yaml")],
        [
            f"run_dir={scratch / 'gsm8k'}",
            f"data.store_dir={scratch / 'gsm8k-store'}",
            f"model.path={model.absolute()}",
            *(f"data.{split}={{adapter: gsm8k, path: {data / split}.jsonl}}" for split in ("train", "test")),
            "strategies=[sft-tag]",
        ],
    )
    (store,) = prepare(config).stores.values()
    return np.asarray(store.segment_counts)


def large_shapes(counts: np.ndarray) -> Table:
    """Tokens a second and memory on nodes of eight H100, and what is too small."""
    table = Table(title="8 x h100-80g a node, 3,200 Gbit/s between nodes, GSM8K's lengths, rows of 8,192 tokens")
    for heading in ("shape", "stage", "smallest", *(f"{nodes} nodes" for nodes in NODES)):
        table.add_column(heading)
    for name, shape in SHAPES.items():
        size = size_of(shape)
        for stage, weights in STAGES.items():
            found = {nodes: on_nodes(counts, shape, size, weights, nodes) for nodes in ALL_NODES}
            smallest = next((str(nodes) for nodes in ALL_NODES if found[nodes].fits), "none")
            table.add_row(name, stage, smallest, *(in_words(found[nodes]) for nodes in NODES))
    return table


def long_rows() -> Table:
    """Rows of one long example, with loss on all of it, that one to eight ranks share."""
    title = f"8 x h100-80g a node, 3,200 Gbit/s between nodes, rows of {LONG_TOKENS:,} tokens"
    table = Table(title=title)
    for heading in ("shape", "nodes", *(f"{sharing} ranks a row" for sharing in SHARING)):
        table.add_column(heading)
    for name, nodes in LONG_ROWS.items():
        size = size_of((SHAPES | MIXTURES)[name])
        found = [in_words(_with_long_rows(size, cluster(nodes), sharing)) for sharing in SHARING]
        table.add_row(name, str(nodes), *found)
    return table


def _with_long_rows(size: ModelSize, on: Cluster, sharing: int) -> Estimate:
    """A step of as many rows as there are ranks, whatever number of them shares each."""

    def rows_for(data_ranks: int, micro_batch_tokens: int) -> list[Rows]:
        tokens = np.full((data_ranks, on.ranks // data_ranks), LONG_TOKENS)
        return [Rows(tokens, mean_attended_pairs(tokens, size.flops.window), tokens, tokens)]

    training = LARGE.model_copy(
        update={
            "micro_batch_tokens": LONG_TOKENS,
            "sequence_parallel_ranks": sharing,
            "logit_chunk_positions": LONG_TOKENS // 16,
        }
    )
    return estimate(size, training, on, StageLoad("long rows", 1, LONG_TOKENS, rows_for))


def exports() -> Table:
    """The model folder of a stage, which all ranks write side by side."""
    table = Table(title="8 x h100-80g a node, 3,200 Gbit/s between nodes, a node writes 2 GB/s")
    for heading in ("shape", "nodes", "weights", "files", "memory of a rank", "time"):
        table.add_column(heading)
    for name, nodes in EXPORTING.items():
        found = estimate_export(size_of((SHAPES | MIXTURES)[name]), LARGE, cluster(nodes))
        cells = f"{found.gib:,.0f} GiB", str(found.files), f"{found.rank_gib:.1f} GiB", f"{found.seconds:.0f} s"
        table.add_row(name, str(nodes), *cells)
    return table


def in_words(found: Estimate) -> str:
    memory = f"{found.memory.total_gib:.0f} GiB"
    if not found.fits:
        return f"{memory}: does not fit"
    return f"{found.tokens_per_second:,.0f} tok/s, {memory}, {found.limit}"


def weak_scaling(counts: np.ndarray) -> dict[str, Figure]:
    """Tokens a second of a rank at 1,024 ranks over 8, 70B, as the plans' slowest ranks and the network leave it."""
    shape = SHAPES["70B (Llama 3.1)"]
    rates = {}
    for nodes in (4, 128):
        found = on_nodes(counts, shape, size_of(shape), STAGES["stage 1"], nodes)
        rates[nodes] = found.tokens_per_second / (8 * nodes)
        console.print(f"70B on {8 * nodes} ranks: {rates[nodes]:,.0f} tok/s a rank, {found.limit}")
    return {
        "weak scaling, 70B, 1,024 ranks over 32": Figure(rates[128] / rates[4], "", None, None, "64 examples a rank")
    }


def on_nodes(counts: np.ndarray, shape, size: ModelSize, weights: tuple[float, ...], nodes: int) -> Estimate:
    optimization = batch(8 * nodes)
    enough = np.tile(counts, (-(-optimization.global_batch_size // len(counts)), 1))
    load = load_of(enough, weights, optimization, shape, most_steps=1)
    return estimate(size, LARGE, cluster(nodes), load)


def batch(ranks: int) -> OptimizationConfig:
    """As many examples a rank on every cluster."""
    return OptimizationConfig(global_batch_size=EXAMPLES_PER_RANK * ranks, look_ahead_steps=1)


def cluster(nodes: int) -> Cluster:
    return replace(Cluster(1, 8, ACCELERATORS["h100-80g"], network_gbps=3200), nodes=nodes)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/gsm8k"), help="folder with train.jsonl")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"))
    parser.add_argument("--table", action="store_true", help="only what larger shapes take")


if __name__ == "__main__":
    main()
