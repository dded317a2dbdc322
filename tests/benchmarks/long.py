"""Rows of growing length on one to four ranks that share them, beside DeepSpeed's own sequence parallelism.

``python -m tests.benchmarks.long`` with a small decoder in float32 over gloo; no data and no model are needed. Both
sides recompute their layers, attend with torch's SDPA, and have loss on all tokens. All cores are used, by one process
or by several. The peer is `UlyssesSPAttentionHF` in a plain loop: through transformers' Trainer it needs accelerators.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import psutil
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
from transformers.integrations import HfDeepSpeedConfig

from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.collate import pack
from sftkey_dist.training.engine.factory import make_engine
from tests.benchmarks.figures import Figure, arguments, publish
from tests.distributed.harness import run_ranks
from tests.stage_job import make_stage_job

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 65_536,
}
LENGTHS, QUICK_LENGTHS = (1024, 4096, 16_384, 32_768), (512, 1024)
RANKS = (1, 2, 4)
REPEATS = 3
WARM_UP_TOKENS = 256
"""Length of the row of the step that is not measured."""


@dataclass(frozen=True)
class Measured:
    """Of steps with one length.

    Attributes:
        seconds: that one took.
        gib: most memory of a rank, beyond what it held before the step.
        loss: mean over the row's tokens, in nats.
    """

    seconds: float
    gib: float
    loss: float


def main() -> None:
    options = arguments(__doc__ or "")
    lengths = QUICK_LENGTHS if options.quick else LENGTHS
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        config = transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        for ranks in RANKS:
            ours = _on_ranks(ranks, train_ours, folder, lengths, Path(scratch))
            theirs = _on_ranks(ranks, train_theirs, folder, lengths, Path(scratch))
            for length, mine, other in zip(lengths, ours, theirs, strict=True):
                figures |= _figures(ranks, length, mine, other)
    publish("A row that ranks share", figures, options.json)


def _figures(ranks: int, length: int, ours: Measured, theirs: Measured) -> dict[str, Figure]:
    name = f"{length:,} tokens on {ranks} rank{'s' if ranks > 1 else ''}"
    return {
        f"{name}, tokens a second": Figure(length / ours.seconds, ""),
        f"{name}, DeepSpeed's time / ours": Figure(theirs.seconds / ours.seconds, ""),
        f"{name}, memory of a rank": Figure(ours.gib, "GiB", against=f"DeepSpeed's {theirs.gib:.3f} GiB"),
        f"{name}, DeepSpeed's loss - ours": Figure(theirs.loss - ours.loss, "nats", against=f"{ours.loss:.4f}"),
    }


def _on_ranks(ranks: int, work: Callable[..., None], *arguments: Any) -> list[Measured]:
    """What rank 0 writes of a piece of work."""
    file = arguments[-1] / "measured.json"
    run_ranks(ranks, work, *arguments[:-1], file)
    return [Measured(*each) for each in json.loads(file.read_text())]


ZERO3 = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization": {"stage": 3},
    "steps_per_print": 10**9,
}


def train_ours(folder: Path, lengths: tuple[int, ...], file: Path) -> None:
    """The work of a rank: a step for every length."""
    ranks = dist.get_world_size()
    _use_all_cores(ranks)
    training = TrainingConfig(
        gradient_checkpointing=True, sequence_parallel_ranks=ranks, micro_batch_tokens=max(lengths)
    )
    engine = make_engine(make_stage_job(file.parent / "stage", folder, folder, (0.0, 1.0), training=training))

    def step(length: int) -> float:
        tokens = _tokens(length)
        row = engine.place(pack([(tokens, np.r_[0, np.ones(length - 1, dtype=np.int64)])], (0.0, 1.0), False))
        loss_sum = (engine.forward(row)[:, 0] * row.target_weights).sum()
        engine.backward(loss_sum, length - 1, ends_step=True)
        engine.step(1e-4)
        return float(loss_sum.detach()) / (length - 1)

    step(WARM_UP_TOKENS)
    _write(file, [_measure(lambda length=length: step(length)) for length in lengths])
    engine.close()


def train_theirs(folder: Path, lengths: tuple[int, ...], file: Path) -> None:
    """The work of a rank with DeepSpeed's own sequence parallelism, in a loop as its documentation has it."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    _use_all_cores(ranks)
    partitioning = HfDeepSpeedConfig(ZERO3)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    groups = UlyssesSPAttentionHF.register_with_transformers(
        model, "sdpa", sequence_parallel_size=ranks, micro_batch_size=1, seq_length_is_variable=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ZERO3, mpu=groups)
    engine.train()

    def step(length: int) -> float:
        tokens = torch.from_numpy(_tokens(length))
        part = slice(rank * length // ranks, (rank + 1) * length // ranks)
        logits = engine(
            input_ids=tokens[None, part], position_ids=torch.arange(length)[None, part], use_cache=False
        ).logits[0]
        targets = F.pad(tokens[1:], (0, 1), value=-100)[part]
        loss = F.cross_entropy(logits.float(), targets, reduction="sum") / (length - 1)
        engine.backward(loss * ranks)
        engine.step()
        return float(loss.detach())

    step(WARM_UP_TOKENS)
    _write(file, [_measure(lambda length=length: step(length)) for length in lengths])
    engine.destroy()
    del partitioning


def _measure(step: Callable[[], float]) -> Measured:
    """Several steps of one length: the median of their seconds, the most memory, and the loss of the first."""
    measured = [_measure_once(step) for _ in range(REPEATS)]
    seconds = statistics.median(each.seconds for each in measured)
    return Measured(seconds, max(each.gib for each in measured), measured[0].loss)


def _measure_once(step: Callable[[], float]) -> Measured:
    held, started = _reset_peak(), time.perf_counter()
    loss = step()
    return Measured(time.perf_counter() - started, (_peak_bytes() - held) / 2**30, loss)


def _write(file: Path, measured: list[Measured]) -> None:
    """The seconds of rank 0, the memory of the rank that needed most, and the sum of the ranks' losses."""
    all_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_ranks, measured)
    if dist.get_rank() == 0:
        by_length = list(zip(*all_ranks, strict=True))
        content = [(own[0].seconds, max(of.gib for of in own), sum(of.loss for of in own)) for own in by_length]
        file.write_text(json.dumps(content))


def _use_all_cores(ranks: int) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))


def _tokens(length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(1, SHAPE["vocab_size"], length)


def _reset_peak() -> int:
    """Bytes that the process holds; its high-water mark is set to that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
