"""What the sides are given: encoded examples, their loss weights, and models that are made for the benchmark."""

from pathlib import Path

import numpy as np
import torch
import transformers

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract, Segment
from sftkey_dist.data.building.task import Encoding
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.data.store import EncodedStore
from tests.benchmarks.throughput.task import Task

CONTRACT = ResponseContract(
    segments=(
        Segment(name="reasoning", tag="Thinking", required=False),
        Segment(name="answer", tag="Answer", key=True, delimiter="\n#### "),
    )
)


def weights_of(task: Task) -> tuple[float, ...]:
    """Loss weight of every segment."""
    names = CONTRACT.segment_names
    return tuple(float(name == "answer" if task.stage == "key" else i > 0) for i, name in enumerate(names))


def store_of(task: Task) -> EncodedStore:
    return EncodedStore(Path(task.store_dir))


def labelled(task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids of the first steps' examples, and which of them carry loss."""
    weights, store = np.array(weights_of(task)), store_of(task)
    examples = [store.example(index) for index in range(task.num_steps * task.global_batch_size)]
    return [(ids, weights[segments] > 0) for ids, segments in examples]


def prepare(data: Path, model_dir: Path, folder: Path) -> Path:
    """Encode GSM8K; returns the store."""
    train, test = (SourceConfig(adapter="gsm8k", path=str(data / f"{s}.jsonl"), limit=2000) for s in ("train", "test"))
    config = DataConfig(train=train, test=test, store_dir=folder, max_length_tokens=1024)
    encoding = Encoding(Form.TAGGED, CONTRACT, PromptConfig(), 1024, model_dir, False)
    return prepare_store("train", config, encoding).path


def make_half_billion(folder: Path, tokenizer_of: Path, tied: bool) -> Path:
    """A random model of Qwen2.5-0.5B's shape, with its vocabulary of 152k, beside the tokenizer of a smaller one."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=tied,
        eos_token_id=2,
        bos_token_id=1,
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    return folder
