"""What every source yields: examples, and refusals for unusable rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftkey_dist.run_dir.artifacts.kinds import absent_with

ARGUMENTS_COLUMN = "chat_template_kwargs"
"""Column with a row's own arguments of the chat template; TRL reads the same column."""
TOO_LONG = "too_long"
"""Reason of a refused row that has more tokens than `data.max_length_tokens`."""
PROMPT_REFUSED = "prompt_refused"
"""Reason of a refused row whose prompt the chat template does not write as it is."""


@dataclass(frozen=True)
class Turn:
    """A message of a conversation; ``role`` is system, user, assistant or tool."""

    role: str
    content: str
    fields: Mapping[str, object] | None = field(default=None, metadata=absent_with("fields"))
    """Further fields that chat templates read: `tool_calls`, `tool_call_id`, `name` and the text of a thought."""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls of tools in the message, as `calls_of` returns them."""
        calls = (self.fields or {}).get("tool_calls")
        return calls if isinstance(calls, list) else []

    @property
    def message(self) -> dict[str, object]:
        """The message as a chat template reads it."""
        return {"role": self.role, "content": self.content, **(self.fields or {})}


@dataclass(frozen=True)
class Example:
    """A prompt and the named segments of its response."""

    id: str
    """Its origin: `file:line`, `file#row` or `dataset/split#row`."""
    prompt: str
    """The last user message."""
    values: Mapping[str, str]
    """Text of each segment."""
    history: tuple[Turn, ...] = ()
    """Messages before the prompt; a system message, if there is one, comes first."""
    left_out: tuple[str, ...] = ()
    """Kinds of text in the source that belong to no segment, such as thinking and sign_off."""
    data_set: str = ""
    """Name of the source, if scores are reported per source."""
    template_arguments: Mapping[str, object] = field(default_factory=dict)
    """Values of the chat template's variables for this row, by name."""
    tool_turns: tuple[Turn, ...] = ()
    """Messages between the prompt and the response: the assistant's calls of tools and their results."""
    tools: tuple[Mapping[str, object], ...] = ()
    """The tools that the response may call, as OpenAI's API describes them."""
    loss_weight: float = 1.0
    """Factor of the loss of all its tokens."""
    last_turn: "Example | None" = None
    """The last example of the same conversation, if this is an earlier one; both are held out together."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All messages before the response."""
        return (*self.history, Turn("user", self.prompt), *self.tool_turns)


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be used; ``reason`` is a short, stable name for counting."""

    id: str
    reason: str
    detail: str
    num_tokens: int | None = field(default=None, metadata=absent_with("num_tokens"))
    """Of a row that is longer than allowed, its length."""


def by_reason(refusals: Iterable[Refusal]) -> dict[str, list[Refusal]]:
    """The refusals of each reason."""
    found: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        found.setdefault(refusal.reason, []).append(refusal)
    return found
