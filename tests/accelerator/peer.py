"""The peer on one accelerator: TRL's `SFTTrainer`, with ZeRO-3 and without DeepSpeed, on rows as long as ours.

Its rows are cut at a fixed length and attend to all that comes before in the row, which is the fastest that it does
without the flash-attn package; ours attend within examples.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from trl import SFTConfig, SFTTrainer

from tests.accelerator.probe import synchronize
from tests.distributed.harness import free_port, join_as_rank

STEPS = 7
ZERO3 = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 10**10,
        "memory_efficient_linear": False,
    },
}


class _StepSeconds(transformers.TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        synchronize("cuda")
        self._started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        synchronize("cuda")
        self.seconds.append(time.perf_counter() - self._started)


def main() -> None:
    task, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    join_as_rank(0, 1, free_port(), "cuda")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows, length = task["rows_a_step"], task["row_tokens"]
    generator = np.random.default_rng(0)
    ids = generator.integers(3, 150_000, (STEPS * rows, length))
    # Examples are shorter than a row, so that prompts without a loss lie everywhere in it.
    labels = np.where(generator.random(ids.shape) < task["prompt_share"], -100, ids)
    clock = _StepSeconds()
    trainer = SFTTrainer(
        model=task["model"],
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(prefix="peer-"),
            deepspeed=ZERO3 if task["with_deepspeed"] else None,
            bf16=True,
            model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "sdpa"},
            per_device_train_batch_size=1,
            gradient_accumulation_steps=rows,
            max_length=length,
            max_steps=STEPS,
            learning_rate=1e-6,
            optim="adamw_torch_fused",
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()}),
        processing_class=transformers.AutoTokenizer.from_pretrained(task["model"]),
        callbacks=[clock],
    )
    trainer.train()
    rates = [rows * length / seconds for seconds in clock.seconds[task["warmup"] :]]
    memory = torch.cuda.max_memory_allocated() / 2**30
    result.write_text(json.dumps({"tokens_per_second": statistics.median(rates), "allocated_gib": memory}))


if __name__ == "__main__":
    main()
