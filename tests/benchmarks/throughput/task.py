"""What every side is told, so that all train the same examples with the same loss tokens and the same optimizer.

Imports nothing large: the process that starts the sides takes memory from them.
"""

import importlib
import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RANKS = 2


@dataclass(frozen=True)
class Task:
    """Train ``num_steps`` steps; the first ``warmup_steps`` are not timed.

    Attributes:
        model_dir: Hugging Face folder.
        store_dir: encoded GSM8K.
        stage: "full" trains the whole response, "key" the answer.
        global_batch_size: examples a step.
        row_tokens: most tokens in a packed row.
        peer_micro_batch_size: examples in the peer's padded micro-batch.
        logit_chunk_positions: of our side, as the next, for a model that would not fit otherwise.
        reduce_bucket_elements: gradients that we reduce at a time.
    """

    model_dir: str
    store_dir: str
    stage: str
    global_batch_size: int
    row_tokens: int
    peer_micro_batch_size: int
    warmup_steps: int
    num_steps: int
    logit_chunk_positions: int | None = None
    reduce_bucket_elements: int = 50_000_000


def as_argument(task: Task) -> str:
    return json.dumps(asdict(task))


def from_argument() -> tuple[Task, Path]:
    """What a side's process is started with: the task, and the file for its result."""
    return Task(**json.loads(sys.argv[1])), Path(sys.argv[2])


def write_result(file: Path, tokens_per_second: list[float], **more: Any) -> None:
    """Tokens a second of every timed step, padding not counted, and this rank's peak memory."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    file.write_text(json.dumps({"tokens_per_second": tokens_per_second, "peak_memory_gib": memory} | more))


def call_in_material(function: str, *arguments: Any) -> Any:
    """What a function of `material` returns, which is imported only now."""
    return getattr(importlib.import_module("tests.benchmarks.throughput.material"), function)(*arguments)
