"""What a tokenizer says about its tokens."""

from typing import Any

from tokenizers import AddedToken


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Id and text of every token that is special, wherever the tokenizer says so.

    `all_special_ids` has those with a role or in a list of extra ones; a token may be marked special by its own entry
    alone.
    """
    entries: dict[int, AddedToken] = tokenizer.added_tokens_decoder
    marked = {token_id: entry.content for token_id, entry in entries.items() if entry.special}
    return marked | {int(i): str(tokenizer.convert_ids_to_tokens(i)) for i in tokenizer.all_special_ids}
