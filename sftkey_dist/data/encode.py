"""Examples to token ids with a segment id each, built piece by piece so that no token straddles a boundary."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sftkey_dist.contract import END_OF_TURN, PROMPT, ContractError, Form, Piece, ResponseContract
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.prompt import PromptEncoder

ENCODER_VERSION = 1
"""Raise it when the same input would be encoded differently: stores made before are then built anew."""


@dataclass(frozen=True)
class EncodedExample:
    """``input_ids[T]`` and ``segment_ids[T]``: position i of the latter indexes the contract's segment names."""

    id: str
    input_ids: list[int]
    segment_ids: list[int]


class ExampleEncoder:
    """Encodes examples in one form under one contract, tokenizer and prompt template."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: PromptEncoder,
        contract: ResponseContract,
        form: Form,
        max_length_tokens: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._contract = contract
        self._form = form
        self._max_length_tokens = max_length_tokens
        self._segment_ids = {name: i for i, name in enumerate(contract.segment_names)}
        self._special_ids = frozenset(tokenizer.all_special_ids)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample | Refusal]:
        """Encode a batch; an example that cannot be encoded exactly becomes a refusal with its reason."""
        rendered: list[list[Piece] | Refusal] = [self._render(example) for example in examples]
        pieces = list(chain.from_iterable(item for item in rendered if isinstance(item, list)))
        piece_ids = iter(self._tokenize([piece.text for piece in pieces]))
        prompt_ids = self._prompts.ids([example.prompt for example in examples])
        return [
            item if isinstance(item, Refusal) else self._join(example, prompt, item, [next(piece_ids) for _ in item])
            for example, prompt, item in zip(examples, prompt_ids, rendered, strict=True)
        ]

    def _render(self, example: Example) -> list[Piece] | Refusal:
        try:
            return self._contract.render(example.values, self._form)
        except ContractError as error:
            return Refusal(example.id, error.reason, str(error))

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def _join(
        self, example: Example, prompt_ids: list[int], pieces: list[Piece], piece_ids: list[list[int]]
    ) -> EncodedExample | Refusal:
        refusal = self._check(example, prompt_ids, pieces, piece_ids)
        if refusal is not None:
            return refusal
        input_ids, segment_ids = list(prompt_ids), [self._segment_ids[PROMPT]] * len(prompt_ids)
        for piece, ids in zip(pieces, piece_ids, strict=True):
            input_ids += ids
            segment_ids += [self._segment_ids[piece.segment]] * len(ids)
        input_ids.append(self._prompts.end_of_turn_id)
        segment_ids.append(self._segment_ids[END_OF_TURN])
        if len(input_ids) > self._max_length_tokens:
            return Refusal(
                example.id,
                "too_long",
                f"{len(input_ids)} tokens, data.max_length_tokens is {self._max_length_tokens}",
            )
        return EncodedExample(example.id, input_ids, segment_ids)

    def _check(
        self, example: Example, prompt_ids: list[int], pieces: list[Piece], piece_ids: list[list[int]]
    ) -> Refusal | None:
        """Refuse what training could not learn exactly as written."""
        if not prompt_ids:
            return Refusal(example.id, "empty_prompt", "the prompt has no tokens, so nothing predicts the response")
        if self._special_ids.intersection(chain.from_iterable(piece_ids)):
            return Refusal(example.id, "special_token_in_text", "the response contains a special token's text")
        decoded = self._tokenizer.batch_decode(piece_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for piece, text in zip(pieces, decoded, strict=True):
            if piece.text != text:
                return Refusal(
                    example.id,
                    "not_reproduced",
                    f"the tokenizer turns {piece.segment} {piece.text[:40]!r} into {text[:40]!r}",
                )
        return None
