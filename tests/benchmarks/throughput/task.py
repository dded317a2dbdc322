"""What every side is told, so that all train the same examples with the same loss tokens and the same optimizer."""

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.schema import PromptConfig
from sftkey_dist.contract import Form, ResponseContract, Segment
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.data.task import Encoding

RANKS = 2
CONTRACT = ResponseContract(
    segments=(
        Segment(name="reasoning", tag="Thinking", required=False),
        Segment(name="answer", tag="Answer", key=True, delimiter="\n#### "),
    )
)


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
        logit_chunk_positions: of our side, where a row's logits over the vocabulary would not fit.
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

    @property
    def weights(self) -> tuple[float, ...]:
        names = CONTRACT.segment_names
        return tuple(float(name == "answer" if self.stage == "key" else i > 0) for i, name in enumerate(names))

    @property
    def store(self) -> EncodedStore:
        return EncodedStore(Path(self.store_dir))

    def labelled(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids of the first steps' examples, and which of them carry loss."""
        weights = np.array(self.weights)
        examples = [self.store.example(index) for index in range(self.num_steps * self.global_batch_size)]
        return [(ids, weights[segments] > 0) for ids, segments in examples]


def prepare(data: Path, model_dir: Path, folder: Path) -> Path:
    """Encode GSM8K; returns the store."""
    train, test = (SourceConfig(adapter="gsm8k", path=str(data / f"{s}.jsonl"), limit=2000) for s in ("train", "test"))
    config = DataConfig(train=train, test=test, store_dir=folder, max_length_tokens=1024)
    encoding = Encoding(Form.TAGGED, CONTRACT, PromptConfig(), 1024, model_dir, False)
    return prepare_store("train", config, encoding).path


def as_argument(task: Task) -> str:
    return json.dumps(asdict(task))


def from_argument() -> tuple[Task, Path]:
    """What a side's process is started with: the task, and the file for its result."""
    return Task(**json.loads(sys.argv[1])), Path(sys.argv[2])


def write_result(file: Path, tokens_per_second: list[float], **more: Any) -> None:
    """Tokens a second of every timed step, padding not counted, and this rank's peak memory."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    file.write_text(json.dumps({"tokens_per_second": tokens_per_second, "peak_memory_gib": memory} | more))
