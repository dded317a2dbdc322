"""Thinking that a reasoning model wrote before what it says: found by its tags, closed, unclosed or half a pair."""

import re
from dataclasses import dataclass

_TAG = re.compile(
    r"<(?P<slash>/?)(?:think|thinking|thought|reasoning)>|<\|(?P<word>begin|end)_of_thought\|>", re.IGNORECASE
)


@dataclass(frozen=True)
class Thinking:
    """Where the thinking lies in a response, and where what follows it begins.

    Attributes:
        start: first character inside the tags.
        end: last one, exclusive; equal to ``start`` where there is no thinking.
        after: where the text that a person reads begins.
        problem: why it cannot be told apart; "" when it can.
    """

    start: int
    end: int
    after: int
    problem: str = ""


def find_thinking(response: str) -> Thinking:
    """``<think>…</think>…``, or ``…</think>…`` where the chat template had opened the tag."""
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
    """What a model says after its thinking; "" where that never ended."""
    closing = [tag for tag in _TAG.finditer(reply) if _closes(tag)]
    if closing:
        return reply[closing[-1].end() :]
    return "" if _TAG.match(reply.lstrip()) else reply


def holds_thinking_tag(text: str) -> bool:
    """Whether a tag of thinking is left in a text."""
    return _TAG.search(text) is not None


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag["slash"]) or (tag["word"] or "").casefold() == "end"
