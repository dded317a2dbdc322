"""Encodes examples to token ids with a segment id each, piece by piece, so that no token crosses a segment boundary."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftkey_dist.contract import END_OF_TURN, PROMPT, ContractError, Form, Piece, ResponseContract
from sftkey_dist.data.encoding.prompt import PromptEncoder, PromptError
from sftkey_dist.data.encoding.tokens import decode_ids, encode_texts
from sftkey_dist.data.example import PROMPT_REFUSED, TOO_LONG, Example, Refusal
from sftkey_dist.errors import ModelError
from sftkey_dist.models.vocabulary import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENCODER_VERSION = 7
"""Increase it when the same input would be encoded differently; stores of earlier versions are then rebuilt."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids ``input_ids[T]``, and segments as runs (segment id, number of tokens), in order, T tokens in total.

    A segment id is an index into the contract's segment names.
    """

    id: str
    input_ids: list[int]
    runs: list[tuple[int, int]]
    loss_weight: float = 1.0
    """See `Example`."""

    @property
    def segment_ids(self) -> list[int]:
        """Segment id of every token, [T]."""
        return [segment for segment, length in self.runs for _ in range(length)]


@dataclass(frozen=True)
class _Written:
    """An example as text: the prompt as the model reads it, and the pieces of the response."""

    prompt: str
    pieces: list[Piece]


@dataclass(frozen=True)
class _Tokens:
    """The token ids of a text, and the text that they decode to."""

    ids: list[int]
    decoded: str


class ExampleEncoder:
    """Encodes examples in one form, with one contract, tokenizer and prompt template."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        prompts: PromptEncoder,
        contract: ResponseContract,
        form: Form,
        max_length_tokens: int,
    ) -> None:
        """
        Raises:
            ModelError: The tokenizer cannot encode a response piece by piece.
        """
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._contract = contract
        self._form = form
        self._max_length_tokens = max_length_tokens
        self._segment_ids = {name: i for i, name in enumerate(contract.segment_names)}
        self._special_ids = frozenset(special_tokens(tokenizer)) | frozenset(
            tokenizer.convert_tokens_to_ids(list(contract.special_tokens))
        )
        self._marks: dict[str, _Tokens] = {}
        self._require_that_pieces_join()

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample | Refusal]:
        """Encode a batch. An example that cannot be encoded exactly becomes a refusal with the reason."""
        written = [self._write(example) for example in examples]
        kept = [item for item in written if isinstance(item, _Written)]
        prompt_ids = iter(self._prompts.ids([item.prompt for item in kept]))
        tokens = iter(self._tokenize([piece.text for item in kept for piece in item.pieces if not piece.is_mark]))
        return [
            item
            if isinstance(item, Refusal)
            else self._join(
                example,
                next(prompt_ids),
                [(piece, self._mark(piece) if piece.is_mark else next(tokens)) for piece in item.pieces],
            )
            for example, item in zip(examples, written, strict=True)
        ]

    def _require_that_pieces_join(self) -> None:
        """Check that the tokens of two pieces decode to the two pieces.

        Some tokenizers begin every text with an extra space, such as SentencePiece's Metaspace in Llama 2 and Mistral.

        Raises:
            ModelError: They decode to something else.
        """
        for pair in (("a", "b"), (">", "a"), ("a", "<"), ("\n", "a"), ("1", "2")):
            ids = encode_texts(self._tokenizer, pair, add_special_tokens=False)
            (joined,) = decode_ids(self._tokenizer, [ids[0] + ids[1]])
            if joined != "".join(pair):
                raise ModelError(
                    f"the tokenizer turns {pair[0]!r} followed by {pair[1]!r} into {joined!r}, so segments cannot be "
                    f"encoded exactly; use a model with a byte-level tokenizer"
                )

    def _write(self, example: Example) -> _Written | Refusal:
        try:
            prompt = self._prompts.text(example)
            pieces = self._contract.render(example.values, self._form)
            return _Written(prompt, self._prompts.continued(prompt, pieces))
        except ContractError as error:
            return Refusal(example.id, error.reason, str(error))
        except PromptError as error:
            return Refusal(example.id, PROMPT_REFUSED, str(error))

    def _tokenize(self, texts: list[str]) -> list[_Tokens]:
        ids = encode_texts(self._tokenizer, texts, add_special_tokens=False)
        decoded = decode_ids(self._tokenizer, ids)
        return [_Tokens(*item) for item in zip(ids, decoded, strict=True)]

    def _mark(self, piece: Piece) -> _Tokens:
        if piece.text not in self._marks:
            (self._marks[piece.text],) = self._tokenize([piece.text])
        return self._marks[piece.text]

    def _join(
        self, example: Example, prompt_ids: list[int], pieces: list[tuple[Piece, _Tokens]]
    ) -> EncodedExample | Refusal:
        if not prompt_ids:
            return Refusal(example.id, "empty_prompt", "the prompt has no tokens, so nothing predicts the response")
        input_ids, runs = list(prompt_ids), [(self._segment_ids[PROMPT], len(prompt_ids))]
        for piece, tokens in pieces:
            refusal = self._check(example, piece, tokens)
            if refusal is not None:
                return refusal
            input_ids += tokens.ids
            runs.append((self._segment_ids[piece.segment], len(tokens.ids)))
        input_ids.append(self._prompts.end_of_turn_id)
        runs.append((self._segment_ids[END_OF_TURN], 1))
        if len(input_ids) > self._max_length_tokens:
            detail = f"{len(input_ids)} tokens, data.max_length_tokens is {self._max_length_tokens}"
            return Refusal(example.id, TOO_LONG, detail, len(input_ids))
        return EncodedExample(example.id, input_ids, runs, example.loss_weight)

    def _check(self, example: Example, piece: Piece, tokens: _Tokens) -> Refusal | None:
        """Refuse a piece whose tokens do not represent its text; some tokenizers write all text in the form NFC."""
        if not piece.is_mark and not self._special_ids.isdisjoint(tokens.ids):
            return Refusal(example.id, "special_token_in_text", "the response contains a special token's text")
        if piece.text != tokens.decoded and unicodedata.normalize("NFC", piece.text) != tokens.decoded:
            detail = f"the tokenizer turns {piece.segment} {piece.text[:40]!r} into {tokens.decoded[:40]!r}"
            return Refusal(example.id, "not_reproduced", detail)
        return None
