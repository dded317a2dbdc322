"""Masks the tokens that would leave a grammar, for generation with transformers (extra `guided`).

This module is imported only if a configuration asks for guided decoding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# More work than by default for a mask, up to about a second of a core: large vocabularies and repetitions need it.
_LIMITS = LLParserLimits(initial_lexer_fuel=20_000_000, step_lexer_fuel=5_000_000, verbose_errors=False)


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
            self._compiled[grammar] = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
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

        Raises:
            DataError: a grammar needs more work than its limits allow.
        """
        if self._has_begun:
            for matcher, token_id in zip(self._matchers, input_ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():  # a row that has ended is padded
                    matcher.consume_token(token_id)
        self._has_begun = True
        is_forbidden = torch.from_numpy(np.stack([_biases(matcher) for matcher in self._matchers]) == 0)
        return scores.masked_fill(is_forbidden.to(scores.device), -torch.inf)


def _biases(matcher: LLMatcher) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """0 for each token that the grammar does not allow next, [V]."""
    biases = np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8)
    if matcher.is_error():
        # The grammar was checked without the tokenizer, and every token that it consumed was allowed.
        raise DataError(
            f"evaluation.guided=true: the contract is too complex for a grammar with this tokenizer "
            f"({in_a_line(matcher.get_error())}); use smaller repetitions in its checks or fewer optional segments, "
            f"or set evaluation.guided=false"
        )
    return biases
