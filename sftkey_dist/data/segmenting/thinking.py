"""Finds the thinking that a reasoning model writes before its response, by its tags, which may be incomplete."""

import re
from dataclasses import dataclass

_TAG = re.compile(
    r"<(?P<slash>/?)(?:think|thinking|thought|reasoning)>|<\|(?P<word>begin|end)_of_thought\|>", re.IGNORECASE
)


@dataclass(frozen=True)
class Thinking:
    """Position of the thinking in a response, and of the text after it.

    Attributes:
        start: first character inside the tags.
        end: end of the text inside the tags, exclusive; equal to ``start`` if there is no thinking.
        after: start of the text after the thinking.
        problem: why the thinking cannot be separated; "" if it can.
    """

    start: int
    end: int
    after: int
    problem: str = ""


def find_thinking(response: str) -> Thinking:
    """Find ``<think>…</think>…``, or ``…</think>…`` if the chat template has written the opening tag."""
    tags = list(_TAG.finditer(response))
    if not tags:
        return Thinking(0, 0, 0)
    first, closing = tags[0], next((tag for tag in tags if _closes(tag)), None)
    if closing is None:
        return Thinking(0, 0, 0, "unclosed_thinking")
    opened = first is not closing
    is_one_pair = len(tags) == 1 + opened and not (opened and response[: first.start()].strip())
    if not is_one_pair:
        return Thinking(0, 0, 0, "unclear_thinking")
    return Thinking(first.end() if opened else 0, closing.start(), closing.end())


def without_thinking(reply: str) -> str:
    """The text of a reply after its thinking; "" if the thinking never ends."""
    closing = [tag for tag in _TAG.finditer(reply) if _closes(tag)]
    if closing:
        return reply[closing[-1].end() :]
    return "" if _TAG.match(reply.lstrip()) else reply


def holds_thinking_tag(text: str) -> bool:
    """Whether a text contains a tag of thinking."""
    return _TAG.search(text) is not None


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag["slash"]) or (tag["word"] or "").casefold() == "end"
