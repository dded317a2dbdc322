"""The least that a stage could be: a model under ZeRO-3, and a step on every row of tokens, for ``torchrun``.

``torchrun --nproc-per-node 2 -m tests.benchmarks.bare_stage MODEL STEPS FILE`` writes the file after the first step,
and at the end with the seconds of all steps. It imports what such scripts import, and reads no data.
"""

import sys
import time
from pathlib import Path

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
import transformers
from transformers.integrations import HfDeepSpeedConfig

ROWS_OF_A_STEP, TOKENS = 8, 156
"""Rows of a rank, and tokens of each: what the quickstart's steps of 16 examples have."""
ZERO3 = {
    "train_micro_batch_size_per_gpu": ROWS_OF_A_STEP,
    "gradient_clipping": 1.0,
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization": {"stage": 3},
    "steps_per_print": 10**9,
}


def main() -> None:
    model_dir, steps, file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled; ours does without it too
    deepspeed.init_distributed(dist_backend="gloo")
    partitioning = HfDeepSpeedConfig(ZERO3)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ZERO3)
    generator = torch.Generator().manual_seed(dist.get_rank())
    seconds = []
    for step in range(steps):
        started = time.perf_counter()
        tokens = torch.randint(1, model.config.vocab_size, (ROWS_OF_A_STEP, TOKENS), generator=generator)
        engine.backward(engine(input_ids=tokens, labels=tokens, use_cache=False).loss)
        engine.step()
        seconds.append(time.perf_counter() - started)
        if step == 0 and dist.get_rank() == 0:
            file.write_text(str(time.time()))
    if dist.get_rank() == 0:
        file.write_text(" ".join(map(str, seconds)))
    del partitioning


if __name__ == "__main__":
    main()
