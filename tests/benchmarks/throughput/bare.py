"""The limit: one process on all cores, forward and backward over ideally packed rows, no optimizer, nothing sharded.

Examples of a row attend to themselves only, one causal call each; logits exist at loss positions alone.
"""

import os
import time

import torch
import transformers

from sftkey_dist.training.forward.attention import PACKED, register_packed_attention
from sftkey_dist.training.forward.collate import pack
from sftkey_dist.training.forward.loss import loss_sums, token_losses
from tests.benchmarks.throughput.material import CONTRACT, store_of, weights_of
from tests.benchmarks.throughput.task import Task, from_argument, write_result


def main() -> None:
    task, result = from_argument()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    register_packed_attention()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task.model_dir, dtype=torch.float32, attn_implementation=PACKED
    )
    rows = packed_rows(task)
    speeds = []
    for row in rows:
        started = time.perf_counter()
        logits = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=row.kept_positions,
            example_lengths=row.example_lengths,
        ).logits[0]
        losses = token_losses(logits, row.targets)
        loss_sums(losses, row, len(CONTRACT.segment_names)).weighted.backward()
        speeds.append(row.input_ids.shape[1] / (time.perf_counter() - started))
    gemm = max(gemm_flops_per_second() for _ in range(3))
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    write_result(result, speeds[2:], gemm_flops_per_second=gemm, num_weights=num_weights)


def packed_rows(task: Task) -> list:
    """As many rows as a step of the other sides has, and two to warm up; filled first fit, longest first."""
    store, count = store_of(task), task.global_batch_size
    content: list[list] = []
    for example in sorted((store.example(index) for index in range(count)), key=lambda e: -len(e[0])):
        for row in content:
            if sum(len(ids) for ids, _ in row) + len(example[0]) <= 1024:
                row.append(example)
                break
        else:
            content.append([example])
    content = [*content[:2], *content]
    return [pack(examples, weights_of(task), observe_all=False) for examples in content]


def gemm_flops_per_second(size: int = 2048) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    started = time.perf_counter()
    for _ in range(5):
        a @ b
    return 5 * 2 * size**3 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
