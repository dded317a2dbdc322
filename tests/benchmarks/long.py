"""Rows of growing length on one to four ranks that share them, beside transformers' Trainer with DeepSpeed's Ulysses.

``python -m tests.benchmarks.long`` with a small decoder in float32 over gloo; no data and no model are needed. Both
sides recompute their layers, attend with torch's SDPA, and have loss on all tokens. All cores are used, by one process
or by several. The two sides train rows of one length right after each other, since the speed of a machine drifts.
"""

import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import deepspeed
import deepspeed.ops
import numpy as np
import psutil
import torch
import torch.distributed as dist
import transformers
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils import DeepSpeedSequenceParallelConfig

from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.engine.factory import make_engine
from sftkey_dist.training.forward.collate import pack
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
LEARNING_RATE = 1e-4
REPEATS = 4
"""Measured steps: a multiple of the ranks, which the peer gives a row each at a time, and of one length over gloo."""
WARM_UP_TOKENS = 256
"""Length of the first rows, one for each rank. Their steps are not measured."""


@dataclass(frozen=True)
class Measured:
    """A step.

    Attributes:
        seconds: that it took.
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
            for length in lengths:
                ours, theirs = (_on_ranks(ranks, train, folder, length) for train in (train_ours, train_theirs))
                figures |= _figures(ranks, length, ours, theirs)
    publish("A row that ranks share", figures, options.json)


def _figures(ranks: int, length: int, ours: Measured, theirs: Measured) -> dict[str, Figure]:
    name = f"{length:,} tokens on {ranks} rank{'s' if ranks > 1 else ''}"
    return {
        f"{name}, tokens a second": Figure(length / ours.seconds, ""),
        f"{name}, the Trainer's time / ours": Figure(theirs.seconds / ours.seconds, ""),
        f"{name}, memory of a rank": Figure(ours.gib, "GiB", against=f"the Trainer's {theirs.gib:.3f} GiB"),
        f"{name}, the Trainer's loss - ours": Figure(theirs.loss - ours.loss, "nats", against=f"{ours.loss:.4f}"),
    }


def _on_ranks(ranks: int, train: Callable[..., None], folder: Path, length: int) -> Measured:
    """Of the steps that ranks train: the median of their seconds, the most memory, and the loss of the first."""
    file = folder.parent / "measured.json"
    run_ranks(ranks, train, folder, length, file)
    steps = [Measured(**each) for each in json.loads(file.read_text())]
    seconds = statistics.median(step.seconds for step in steps)
    return Measured(seconds, max(step.gib for step in steps), steps[0].loss)


def train_ours(folder: Path, length: int, file: Path) -> None:
    """The work of a rank: a step for every row."""
    ranks = dist.get_world_size()
    _use_all_cores(ranks)
    training = TrainingConfig(gradient_checkpointing=True, sequence_parallel_ranks=ranks, micro_batch_tokens=length)
    engine = make_engine(make_stage_job(file.parent / "stage", folder, folder, (0.0, 1.0), training=training))
    steps = []
    for tokens in _rows(length):
        stopwatch = _Stopwatch()
        row = engine.place(pack([(tokens, np.r_[0, np.ones(len(tokens) - 1, dtype=np.int64)])], (0.0, 1.0), False))
        loss_sum = (engine.forward(row)[:, 0] * row.target_weights).sum()
        engine.backward(loss_sum, len(tokens) - 1, ends_step=True)
        engine.step(LEARNING_RATE)
        mean = _sum_of_ranks(loss_sum.detach()) / (len(tokens) - 1)
        steps.append(Measured(*stopwatch.read(), mean))
    _write(file, steps)
    engine.close()


def train_theirs(folder: Path, length: int, file: Path) -> None:
    """The work of a rank of transformers' Trainer with DeepSpeed, and its sequence parallelism on several ranks."""
    warnings.simplefilter("ignore", FutureWarning)  # of transformers about torch
    transformers.utils.logging.set_verbosity_error()
    _use_all_cores(dist.get_world_size())
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled; ours does without it too
    deepspeed.init_distributed(dist_backend="gloo")  # accelerate refuses ranks without accelerators otherwise
    rows = [{"input_ids": row, "labels": row, "position_ids": np.arange(len(row))} for row in _rows(length)]
    measuring = _MeasuringCallback()
    trainer = transformers.Trainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa"),
        args=_their_settings(file.parent / "trainer", len(rows)),
        train_dataset=datasets.Dataset.from_list(rows).with_format("torch"),
        callbacks=[measuring],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    _write(file, [Measured(*of, loss) for of, loss in zip(measuring.steps, measuring.losses, strict=True)])


def _their_settings(folder: Path, num_steps: int) -> transformers.TrainingArguments:
    ranks = dist.get_world_size()
    variable = DeepSpeedSequenceParallelConfig(sp_seq_length_is_variable=True, sp_attn_implementation="sdpa")
    parallelism = ParallelismConfig(sp_size=ranks, sp_backend="deepspeed", sp_handler=variable)
    return transformers.TrainingArguments(
        output_dir=str(folder),
        deepspeed=ZERO3,
        parallelism_config=parallelism if ranks > 1 else None,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        max_steps=num_steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


ZERO3 = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization": {"stage": 3},
    "steps_per_print": 10**9,
}


class _MeasuringCallback(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """The seconds and GiB of the Trainer's steps, and their losses."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._stopwatch = _Stopwatch()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.steps.append(self._stopwatch.read())

    def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


class _Stopwatch:
    """Time and memory from now on."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what the process holds
        self._held_bytes = int(psutil.Process().memory_info().rss)
        self._started = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """The seconds since then, and the most GiB beyond what the process held."""
        seconds = time.perf_counter() - self._started
        status = Path("/proc/self/status").read_text()
        peak_bytes = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        return seconds, (peak_bytes - self._held_bytes) / 2**30


def _write(file: Path, steps: list[Measured]) -> None:
    """Write what rank 0 measured but for the first steps, with the memory of the rank that needed most."""
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, [step.gib for step in steps])
    most = [max(gib) for gib in zip(*of_ranks, strict=True)]
    measured = [asdict(step) | {"gib": gib} for step, gib in zip(steps, most, strict=True)]
    if dist.get_rank() == 0:
        file.write_text(json.dumps(measured[-REPEATS:]))


def _sum_of_ranks(value: torch.Tensor) -> float:
    dist.all_reduce(value)
    return float(value)


def _rows(length: int) -> list[np.ndarray]:
    """The tokens of every row: short ones, and then those of a length."""
    lengths = [WARM_UP_TOKENS] * dist.get_world_size() + [length] * REPEATS
    return [np.random.default_rng(each).integers(1, SHAPE["vocab_size"], each) for each in lengths]


def _use_all_cores(ranks: int) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))


if __name__ == "__main__":
    main()
