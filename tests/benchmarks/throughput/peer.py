"""The peer: TRL's `SFTTrainer` with DeepSpeed ZeRO-3 on two ranks.

Its best correct settings on a CPU: padded micro-batches of like lengths (packing needs FlashAttention there), the size
that was faster of 4 and 8, the fused optimizer, and labels given for every token, so that both sides train the same
ones.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import transformers
from trl import SFTConfig, SFTTrainer

from tests.benchmarks.throughput.material import labelled
from tests.benchmarks.throughput.task import RANKS, Task, from_argument, write_result
from tests.distributed.harness import free_port, join_as_rank

ZERO3 = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": 1.0,
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization": {"stage": 3, "reduce_bucket_size": 50_000_000},
}


class _CountingTrainer(SFTTrainer):
    """Counts the tokens of every step: like lengths lie together, so steps differ."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.tokens = torch.zeros(self.args.max_steps)

    def training_step(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        self.tokens[self.state.global_step] += int(inputs["attention_mask"].sum())
        return super().training_step(model, inputs, *more, **named)


class _StepSeconds(transformers.TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def main() -> None:
    mp.spawn(run_rank, args=(free_port(), *from_argument()), nprocs=RANKS)


def run_rank(rank: int, port: int, task: Task, result: Path) -> None:
    join_as_rank(rank, RANKS, port)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled; ours does without it too
    deepspeed.init_distributed(dist_backend="gloo")
    rows = [
        {"input_ids": ids.tolist(), "labels": [t if has else -100 for t, has in zip(ids.tolist(), mask, strict=True)]}
        for ids, mask in labelled(task)
    ]
    clock = _StepSeconds()
    trainer = _CountingTrainer(
        model=task.model_dir,
        args=settings(task),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(task.model_dir),
        callbacks=[clock],
    )
    trainer.train()
    dist.all_reduce(trainer.tokens)
    if rank == 0:
        speeds = [n / seconds for n, seconds in zip(trainer.tokens.tolist(), clock.seconds, strict=True)]
        write_result(result, speeds[task.warmup_steps :])


def settings(task: Task) -> SFTConfig:
    return SFTConfig(
        output_dir=tempfile.mkdtemp(prefix="throughput-"),
        deepspeed=ZERO3,
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=task.peer_micro_batch_size,
        gradient_accumulation_steps=task.global_batch_size // RANKS // task.peer_micro_batch_size,
        train_sampling_strategy="group_by_length",
        max_length=None,
        max_steps=task.num_steps,
        learning_rate=1e-5,
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


if __name__ == "__main__":
    main()
