"""Masks the tokens that would leave a grammar, for generation with transformers (extra `guided`).

This module is imported only if a configuration asks for guided decoding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class MaskMaker:
    """Compiles grammars for a tokenizer, each once."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", end_of_turn_id: int, num_logits: int) -> None:
        """
        Args:
            tokenizer: a fast tokenizer.
            end_of_turn_id: the token that ends a response.
            num_logits: number of logits of the model, which may be more than the tokenizer has tokens.
        """
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=num_logits, eos_token=end_of_turn_id)
        self._compiled: dict[str, LLMatcher] = {}

    def masks(self, grammars: Sequence[str], num_samples: int) -> LogitsProcessorList:
        """Masks for a call of `generate`, in which each prompt has a grammar and so many rows."""
        return LogitsProcessorList(
            [_Masks([self._matcher(grammar) for grammar in grammars for _ in range(num_samples)])]
        )

    def _matcher(self, grammar: str) -> LLMatcher:
        if grammar not in self._compiled:
            self._compiled[grammar] = _sound(LLMatcher(self._tokenizer, grammar))
        return self._compiled[grammar].deep_copy()


class _Masks(LogitsProcessor):
    """Follows the tokens of each row and sets the logits of those that its grammar does not allow next to -inf.

    `generate` applies it before temperature and nucleus, so that these see allowed tokens only.
    """

    def __init__(self, matchers: Sequence[LLMatcher]) -> None:
        self._matchers = matchers
        self._has_begun = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """
        Args:
            input_ids: prompts and what has been generated, [rows, T].
            scores: logits of the next token, [rows, V].
        """
        if self._has_begun:
            for matcher, token_id in zip(self._matchers, input_ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():  # a row that has ended is padded
                    matcher.consume_token(token_id)
        self._has_begun = True
        biases = [np.frombuffer(_sound(matcher).compute_logit_bias(), dtype=np.uint8) for matcher in self._matchers]
        is_forbidden = torch.from_numpy(np.stack(biases) == 0).to(scores.device)
        return scores.masked_fill(is_forbidden, -torch.inf)


def _sound(matcher: LLMatcher) -> LLMatcher:
    """A matcher that has no error; the grammar was checked, and every token that it consumed was allowed."""
    if matcher.is_error():
        raise AssertionError(f"guided decoding: {matcher.get_error()}")
    return matcher
