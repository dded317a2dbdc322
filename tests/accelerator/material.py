"""Models with random weights, stores with chosen lengths, and stages over both; nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from sftkey_dist.config.model import EmbeddedModelConfig
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.contract import END_OF_TURN, ResponseContract
from sftkey_dist.data.building.parts import PartSummary
from sftkey_dist.data.building.store_builder import StoreBuilder
from sftkey_dist.data.encoding.encode import EncodedExample
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.models.embedded import make_embedded_model, train_tokenizer
from sftkey_dist.training.job import StageJob
from tests.stage_job import make_stage_job

SEGMENTS = ResponseContract().segment_names
FULL = tuple(float(number > 0) for number in range(len(SEGMENTS)))
KEY = tuple(float(name == "answer") for name in SEGMENTS)
END_OF_TURN_ID = 2


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts, reasonings and answers: log-normal around these means, tags of 3 tokens each.

    Attributes:
        prompt: mean.
        reasoning: mean.
        answer: mean.
        sigma: of the logarithm.
    """

    prompt: float
    reasoning: float
    answer: float
    sigma: float = 0.45


GSM8K = Lengths(prompt=60, reasoning=88, answer=2.3)
"""As `sftkey prepare` measures it with SmolLM2's tokenizer."""
TAG_TOKENS = 13
"""Of four tags and the end of the turn."""
LONG = Lengths(prompt=200, reasoning=1800, answer=4)
"""Of the kind that reasoning models write."""


def tiny_model(folder: Path, hidden_size: int = 64) -> Path:
    """A Qwen3 of two layers with a tokenizer of its own; its heads are as wide as FlashAttention needs."""
    config = EmbeddedModelConfig(
        vocab_size=400, hidden_size=hidden_size, intermediate_size=2 * hidden_size, num_layers=2, num_heads=4
    )
    make_embedded_model(folder, config, _texts(), seed=0)
    return folder


def large_model(folder: Path, shape: dict[str, Any]) -> None:
    """A random Qwen2 of this shape in bfloat16, made where it is fastest."""
    config = transformers.Qwen2Config(**shape, eos_token_id=END_OF_TURN_ID, bos_token_id=1)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    train_tokenizer(_texts(), 400, 4096).save_pretrained(folder)


def make_store(folder: Path, lengths: Lengths, num_examples: int, vocab_size: int, longest: int) -> EncodedStore:
    """Examples of random tokens: what they say changes neither time nor memory."""
    drawn, builder = np.random.default_rng(0), StoreBuilder(folder, SEGMENTS, {})
    examples = [_example(number, lengths, vocab_size, longest, drawn) for number in range(num_examples)]
    with builder.owned():
        part = builder.part(0)
        with part.writing() as writer:
            writer.add(examples, [(2 * number, 2 * number + 1) for number in range(num_examples)])
        part.finish(writer, PartSummary(num_examples, 0, num_examples, ()))
        builder.finish(["made"], f"{folder.name}-{num_examples}", {})
    return EncodedStore(folder)


def stage(
    stage_dir: Path,
    model_dir: Path,
    store: EncodedStore,
    weights: tuple[float, ...] = FULL,
    *,
    precision: str = "bfloat16",
    attention: str = "packed",
    stop_gradient_prefix: bool = False,
    optimization: dict[str, Any] | None = None,
    **training: Any,
) -> StageJob:
    """A stage with these settings; the rest are defaults."""
    return make_stage_job(
        stage_dir,
        model_dir,
        store.path,
        weights,
        optimization=OptimizationConfig(**optimization or {}),
        stop_gradient_prefix=stop_gradient_prefix,
        training=TrainingConfig(**training),
        attention=attention,
        precision=precision,
        end_of_turn_id=END_OF_TURN_ID,
    )


def _texts() -> list[str]:
    return [f"{memo.prompt} {memo.values}" for memo in generate_memos("train", 60, seed=0)]


def _example(number: int, lengths: Lengths, vocab_size: int, longest: int, drawn: Any) -> EncodedExample:
    """A prompt, a tagged reasoning and a tagged answer, cut to the longest that is allowed."""
    answer = max(1, round(drawn.lognormal(np.log(lengths.answer) - lengths.sigma**2 / 2, lengths.sigma)))
    prompt, reasoning = (
        max(4, round(drawn.lognormal(np.log(mean) - lengths.sigma**2 / 2, lengths.sigma)))
        for mean in (lengths.prompt, lengths.reasoning)
    )
    reasoning = max(1, min(reasoning, longest - prompt - answer - 13))
    tokens = {"prompt": prompt, "reasoning": reasoning, "answer": answer}
    runs = [(index, tokens.get(name, 3)) for index, name in enumerate(SEGMENTS) if name != END_OF_TURN]
    runs.append((SEGMENTS.index(END_OF_TURN), 1))
    ids = drawn.integers(3, vocab_size, sum(length for _, length in runs)).tolist()
    return EncodedExample(f"made:{number}", ids, runs)
