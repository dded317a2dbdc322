"""Joins a prompt and a response where the chat template writes the tags of a model's own thinking.

Some templates end a prompt with `<think>`, so that every response begins inside that tag; others end it with an empty
pair of tags, after which no thinking follows. A response that ignores this would be trained in a place that the model
never generates it in: a `<Thinking>` inside `<think>`, or a second `<think>` after an empty one.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from sftkey_dist.contract import THINKING_TAGS, ContractError, Piece

_OPENED = re.compile(rf"(?:{'|'.join(map(re.escape, THINKING_TAGS))})\s*\Z")
_CLOSED = re.compile(rf"(?:{'|'.join(map(re.escape, THINKING_TAGS.values()))})\s*\Z")
_LONGEST_END = 64
"""Characters at the end of a prompt among which a tag is looked for."""
_REMEDIES = (
    "choose it with prompt.template_arguments (many templates have enable_thinking) or replace the template with "
    "prompt.chat_template"
)


def continuing(prompt: str, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of a response without the opening tag that the prompt of a chat template already ends with.

    Raises:
        ContractError: The prompt ends inside a thinking tag that the response does not close, or after one that the
            response would open again.
    """
    end = prompt[-_LONGEST_END:]
    if opened := _OPENED.search(end):
        return _inside(opened.group(), pieces)
    if closed := _CLOSED.search(end):
        _require_no_other(closed.group().strip(), pieces)
    return list(pieces)


def _inside(opened: str, pieces: Sequence[Piece]) -> list[Piece]:
    opening = opened.strip()
    closing = THINKING_TAGS[opening]
    if not any(closing in piece.text for piece in pieces if piece.is_mark):
        raise ContractError(
            "inside_thinking",
            f"the chat template ends the prompt with {opening}, and the contract has no {closing}: the response would "
            f"be inside the model's thinking; use a contract with these tags (configs/contracts/thinking.yaml) or a "
            f"prompt without them: {_REMEDIES}",
        )
    first = pieces[0]
    if not (first.is_mark and opening in first.text):
        return list(pieces)
    if not first.text.startswith(opened):
        raise ContractError(
            "inside_thinking",
            f"the chat template ends the prompt with {opened!r}, and the contract's response begins with "
            f"{first.text!r}; correct the delimiter of its first segment",
        )
    rest = first.text.removeprefix(opened)
    return [*([replace(first, text=rest)] if rest else []), *pieces[1:]]


def _require_no_other(closing: str, pieces: Sequence[Piece]) -> None:
    opening = next(tag for tag, closes in THINKING_TAGS.items() if closes == closing)
    if pieces[0].is_mark and opening in pieces[0].text:
        raise ContractError(
            "after_thinking",
            f"the chat template ends the prompt with {closing}, and the response would begin with another {opening}; "
            f"use a prompt without them: {_REMEDIES}",
        )
