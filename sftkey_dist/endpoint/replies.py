"""Parses the responses of an endpoint with status 200: texts in different formats, or the reason why there is none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NO_COMPLETION = "no_completion"
CUT_OFF = "cut_off_at_max_tokens"
EMPTY = frozenset({"empty_reply", "filtered", "refused", "thinking_only", "tool_call_only", CUT_OFF})
"""Failures in which the model was asked but returned no text."""

_CUT_OFF_REASONS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTER_REASONS = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "recitation", "spii"})
_THINKING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_TEXT_PARTS = frozenset({"text", "output_text"})


@dataclass(frozen=True)
class Reply:
    """The text of a reply, or the reason why there is none after the last attempt.

    Attributes:
        text: text of the reply.
        failure: why there is no text, as a short name or as `name: message of the server`; "" if there is a text.
        cut_off: whether the text ends because it reached the maximum length.
        prompt_tokens: tokens of the prompt, as counted by the server.
        completion_tokens: generated tokens.
        has_thinking: whether the server has taken thinking out of the text.
    """

    text: str = ""
    failure: str = ""
    cut_off: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    has_thinking: bool = False


def failure_name(failure: str) -> str:
    """Name by which failures are counted, without the server's message."""
    return failure.partition(":")[0]


def read_completion(completion: Any, content_of: Callable[[Mapping[str, Any]], Any]) -> list[Reply]:
    """The replies in a completion; a single failure if the JSON is not a completion.

    Args:
        completion: the JSON that was received.
        content_of: returns the content of a choice, a text or a list of parts.
    """
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    if not isinstance(choices, list) or not all(map(_is_choice, choices)):
        return [Reply(failure=NO_COMPLETION)]
    if not choices:
        return [Reply(failure="empty_reply")]
    usage = completion.get("usage") if isinstance(completion.get("usage"), Mapping) else {}
    prompt_tokens = _count(usage.get("prompt_tokens"))
    completion_tokens = _count(usage.get("completion_tokens")) // len(choices)
    return [_reply(choice, content_of(choice), prompt_tokens, completion_tokens) for choice in choices]


def chat_content(choice: Mapping[str, object]) -> object:
    """The content of a choice's message."""
    return _message(choice).get("content")


def completion_content(choice: Mapping[str, object]) -> object:
    """The text of a choice, which continues the prompt."""
    return choice.get("text")


def text_of_content(content: object) -> str:
    """The text of a content, which is a string or a list of parts; thinking and other parts are ignored."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(text_of_content, content))
    if isinstance(content, Mapping) and content.get("type", "text") in _TEXT_PARTS:
        return text_of_content(content.get("text"))
    return ""


def _is_choice(choice: object) -> bool:
    """Whether this is a choice, which contains a text or a reason for ending."""
    return isinstance(choice, Mapping) and (
        isinstance(choice.get("message"), Mapping) or "text" in choice or isinstance(choice.get("finish_reason"), str)
    )


def _reply(choice: Mapping[str, object], content: object, prompt_tokens: int, completion_tokens: int) -> Reply:
    finish_reason = str(choice.get("finish_reason") or "").lower()
    cut_off, text = finish_reason in _CUT_OFF_REASONS, text_of_content(content)
    failure = "filtered" if finish_reason in _FILTER_REASONS else "" if text else _why_empty(choice, content)
    text = "" if failure else text.encode(errors="replace").decode()
    return Reply(text, failure, cut_off, prompt_tokens, completion_tokens, _has_thinking(_message(choice)))


def _why_empty(choice: Mapping[str, object], content: object) -> str:
    message, finish_reason = _message(choice), str(choice.get("finish_reason") or "").lower()
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    kinds = {str(part.get("type")) for part in parts}
    if message.get("refusal") or finish_reason == "refusal" or "refusal" in kinds:
        return "refused"
    if finish_reason in _CUT_OFF_REASONS:
        return CUT_OFF
    if message.get("tool_calls") or message.get("function_call"):
        return "tool_call_only"
    if _has_thinking(message) or kinds & {"thinking", "reasoning", "redacted_thinking"}:
        return "thinking_only"
    return "empty_reply"


def _has_thinking(message: Mapping[str, object]) -> bool:
    return any(message.get(name) for name in _THINKING_FIELDS)


def _message(choice: Mapping[str, object]) -> Mapping[str, object]:
    message = choice.get("message")
    return message if isinstance(message, Mapping) else {}


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 2**53 else 0
