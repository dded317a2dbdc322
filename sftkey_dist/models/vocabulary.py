"""Queries about the vocabulary of a tokenizer."""

from typing import TYPE_CHECKING

from tokenizers import AddedToken

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """Id and text of every special token.

    `all_special_ids` only contains tokens with a role and those in the list of additional special tokens. Others are
    only marked as special in their own entry.
    """
    entries: dict[int, AddedToken] = tokenizer.added_tokens_decoder
    marked = {token_id: entry.content for token_id, entry in entries.items() if entry.special}
    return marked | {int(i): str(tokenizer.convert_ids_to_tokens(i)) for i in tokenizer.all_special_ids}
