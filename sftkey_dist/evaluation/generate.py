"""Greedy generation from a Hugging Face folder; prompts are the training prompts, token for token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor

from sftkey_dist.config.schema import PromptConfig
from sftkey_dist.data.example import Example
from sftkey_dist.data.prompt import PromptEncoder
from sftkey_dist.models.load import load_tokenizer

T = TypeVar("T")


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive runs of at most ``size`` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


@dataclass(frozen=True)
class Generation:
    """An output without its end-of-turn token; ``truncated`` when it never came."""

    text: str
    num_tokens: int
    truncated: bool


class Generator:
    """A loaded model that writes responses."""

    def __init__(self, model_dir: Path, prompt: PromptConfig, trust_remote_code: bool) -> None:
        self._tokenizer = load_tokenizer(model_dir, trust_remote_code)
        self._prompts = PromptEncoder(self._tokenizer, prompt)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model_dir, dtype="auto", trust_remote_code=trust_remote_code
        )
        # Greedy means greedy: a folder's own repetition penalty or suppressed tokens would be merged in.
        self._model.generation_config = transformers.GenerationConfig()
        self._model.to(self._device).eval()

    def generate(self, examples: Sequence[Example], max_new_tokens: int) -> list[Generation]:
        """One greedy response per example, in order."""
        return self.answer(self._prompts.ids([self._prompts.text(example) for example in examples]), max_new_tokens)

    @torch.inference_mode()
    def answer(self, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[Generation]:
        """One greedy response per encoded prompt, in order."""
        input_ids, attention_mask = self._left_padded([list(ids) for ids in prompt_ids])
        outputs = self._model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=transformers.GenerationConfig(
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self._prompts.end_of_turn_id,
                pad_token_id=self._pad_id,
            ),
        )
        return [self._generation(row) for row in outputs[:, input_ids.shape[1] :].tolist()]

    @property
    def _pad_id(self) -> int:
        """Padding is masked, so any id serves a tokenizer that has none."""
        pad = self._tokenizer.pad_token_id
        return int(self._prompts.end_of_turn_id if pad is None else pad)

    def _left_padded(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, ids))
        input_ids = torch.tensor([[self._pad_id] * (longest - len(row)) + row for row in ids], device=self._device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=self._device)
        return input_ids, mask

    def _generation(self, ids: list[int]) -> Generation:
        truncated = self._prompts.end_of_turn_id not in ids
        if not truncated:
            ids = ids[: ids.index(self._prompts.end_of_turn_id)]
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Generation(text, len(ids), truncated)
