"""What every source yields: examples, and refusals for the rows that are none."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """A message of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A prompt and the named segments of its response."""

    id: str
    """Where it comes from: `file:line`, `file#row` or `dataset/split#row`."""
    prompt: str
    """The last user message."""
    values: Mapping[str, str]
    """Text of each segment."""
    history: tuple[Turn, ...] = ()
    """What was said before the prompt, a system message first where there is one."""
    left_out: tuple[str, ...] = ()
    """Kinds of text of the source that belong to no segment, such as thinking and sign_off."""
    data_set: str = ""
    """Name of the source, where scores are told apart by it."""


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be used; ``reason`` is short and stable, so that refusals can be counted."""

    id: str
    reason: str
    detail: str
