"""Our side: the trainer as it ships, on two ranks."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig, ZeroConfig
from sftkey_dist.training.job import StageJob
from tests.benchmarks.throughput.material import weights_of
from tests.benchmarks.throughput.task import RANKS, Task, from_argument, write_result
from tests.distributed.harness import free_port, run_as_rank, train
from tests.stage_job import make_stage_job


def main() -> None:
    task, result = from_argument()
    folder = Path(tempfile.mkdtemp(prefix="throughput-"))
    port = free_port()
    # A fork shares what is imported already, and no third process takes memory from a model that barely fits.
    rank = 0 if os.fork() else 1
    run_as_rank(rank, RANKS, port, {}, train, ([stage_job(task, folder)],))
    if rank:
        return
    os.wait()
    timings = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = timings[task.warmup_steps :]
    tokens, loss_tokens = (sum(record[key] for record in metrics) for key in ("tokens", "loss_tokens"))
    write_result(
        result,
        [record["tokens_per_second"] for record in timed],
        peak_memory_gib=timed[-1]["peak_memory_gib"],
        logits_share=loss_tokens / tokens,
        phase_seconds=[record["phase_seconds"] for record in timed],
    )
    shutil.rmtree(folder)


def stage_job(task: Task, folder: Path) -> StageJob:
    return make_stage_job(
        folder,
        Path(task.model_dir),
        Path(task.store_dir),
        weights_of(task),
        seed=0,
        optimization=OptimizationConfig(
            global_batch_size=task.global_batch_size, num_epochs=9, max_steps=task.num_steps, learning_rate=1e-5
        ),
        training=TrainingConfig(
            micro_batch_tokens=task.row_tokens,
            segment_metrics_every_steps=1000,
            logit_chunk_positions=task.logit_chunk_positions,
            zero=ZeroConfig(reduce_bucket_elements=task.reduce_bucket_elements),
        ),
        end_of_turn_id=2,
    )


if __name__ == "__main__":
    main()
