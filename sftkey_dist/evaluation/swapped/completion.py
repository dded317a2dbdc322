"""Continues begun responses from exactly the token ids that training has before an answer."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import TOO_LONG, Example, Refusal
from sftkey_dist.evaluation.generation import Decoding, Generation
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.swapped.beginning import Beginning
from sftkey_dist.run_dir.artifacts.swapped import ContinuationRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@runtime_checkable
class AnswersTokens(Protocol):
    """A generation backend that takes token ids."""

    tokenizer: Any
    prompts: PromptEncoder

    @property
    def most_tokens(self) -> int | None:
        """Maximum number of tokens of a prompt and its response; None if there is no limit."""
        ...

    def answer(
        self, prompt_ids: Sequence[Sequence[int]], decoding: Decoding, grammars: Sequence[str] | None = None
    ) -> list[list[Generation]]:
        """Responses to each encoded prompt, in order."""
        ...


class PrefixEncoder:
    """Encodes responses as for training, up to where the text of the first key segment begins."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        prompts: PromptEncoder,
        contract: ResponseContract,
        form: Form,
        max_length_tokens: int = sys.maxsize,
    ) -> None:
        self._encoder = ExampleEncoder(tokenizer, prompts, contract, form, max_length_tokens=sys.maxsize)
        self._contract, self._max_length_tokens = contract, max_length_tokens

    def encode(self, examples: Sequence[Example]) -> list[list[int] | Refusal]:
        """Token ids of the prompt and of the response before its answer.

        Returns:
            A refusal for what training would refuse for another reason than its length, and for a prefix of more than
            ``max_length_tokens``.
        """
        return [item if isinstance(item, Refusal) else self._prefix(item) for item in self._encoder.encode(examples)]

    def _prefix(self, encoded: EncodedExample) -> list[int] | Refusal:
        names = self._contract.segment_names
        before = encoded.runs[: self._contract.num_before_key(names[number] for number, _ in encoded.runs)]
        num_tokens = sum(length for _, length in before)
        if num_tokens > self._max_length_tokens:
            detail = f"{num_tokens} tokens before the answer, of at most {self._max_length_tokens}"
            return Refusal(encoded.id, TOO_LONG, detail, num_tokens)
        return encoded.input_ids[:num_tokens]


def complete(
    generator: AnswersTokens, beginnings: Sequence[Beginning], settings: EvaluationSettings
) -> list[ContinuationRecord]:
    """Continue each beginning greedily, as one batch, and stop where the evaluation does."""
    most = sys.maxsize if generator.most_tokens is None else generator.most_tokens - settings.decoding.max_new_tokens
    encoder = PrefixEncoder(generator.tokenizer, generator.prompts, settings.contract, settings.form, most)
    prefixes = encoder.encode([beginning.example for beginning in beginnings])
    kept = [prefix for prefix in prefixes if not isinstance(prefix, Refusal)]
    decoding = replace(settings.decoding, num_samples=1, temperature=0.0, top_p=1.0, guide=None)
    answers = iter(generator.answer(kept, decoding) if kept else [])
    return [
        _record(beginning, None, prefix.reason)
        if isinstance(prefix, Refusal)
        else _record(beginning, next(answers)[0], "")
        for beginning, prefix in zip(beginnings, prefixes, strict=True)
    ]


def _record(beginning: Beginning, generation: Generation | None, refusal: str) -> ContinuationRecord:
    return ContinuationRecord(*beginning.key, generation=generation, refusal=refusal)
