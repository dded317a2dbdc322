"""Conversations as rows, in OpenAI's format and in ShareGPT's.

Every response of a conversation that is trained becomes an example of its own, whose prompt is the conversation before
it. So each one is trained behind exactly the tokens that a server writes for it, also where the chat template writes
earlier turns differently, for example without their thinking.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.columns import RowError, find, items, optional_text, require_unicode, text
from sftkey_dist.data.adapters.content import Content, Row, Unusable
from sftkey_dist.data.adapters.response import segmented
from sftkey_dist.data.adapters.tools import call_in, calls_of, text_of_calls, tools_of
from sftkey_dist.data.example import Turn
from sftkey_dist.data.segmenting.rules import Rule

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields in which servers return what a model thought before its response, and from which chat templates write it."""
_READ_BY_TEMPLATES = ("name", "tool_call_id", *_THOUGHTS)
_OF_SHAREGPT = "conversations"
"""ShareGPT's name of the column of messages."""


@dataclass(frozen=True)
class Conversations:
    """How the conversations of a source are read.

    Attributes:
        column: of the messages.
        fields: names of the fields `role` and `content` in the data, if they differ.
        roles: roles by their names in the data.
        all_turns: whether every response is trained that a user's message precedes, instead of the last one only.
        rules: that cut a response into segments; without rules, the contract does.
        contract: the response contract.
    """

    column: str
    fields: Mapping[str, str]
    roles: Mapping[str, str]
    all_turns: bool
    rules: Sequence[Rule]
    contract: ResponseContract

    def __call__(self, row: Row) -> list[Content | Unusable]:
        """The responses of a row, each with the conversation before it.

        ``{"messages": [{"role": "system", "content": "You grade claims."}, {"role": "user", "content": "My parcel …"},
        {"role": "assistant", "content": "The parcel was insured.\\n#### refund"}]}`` or ``{"conversations": [{"from":
        "human", "value": "My parcel …"}, {"from": "gpt", "value": "The parcel was insured.\\n#### refund"}]}``

        Raises:
            RowError: The messages cannot be read, or none of them is trained.
        """
        column = self._column_of(row)
        found = _messages(row, column)
        turns = [_turn(self._renamed(message), column) for message in found]
        tools = tools_of(row)
        trained = self._trained(found, turns, column)
        return [self._response(turns, place, tools, column) for place in trained]

    def _column_of(self, row: Row) -> str:
        is_absent = self.column == "messages" and find(row, self.column) is None
        return _OF_SHAREGPT if is_absent and find(row, _OF_SHAREGPT) is not None else self.column

    def _renamed(self, message: object) -> object:
        """The message with the usual names of its fields and role."""
        if not isinstance(message, Mapping) or not (self.fields or self.roles):
            return message
        usual = {given: name for name, given in self.fields.items()}
        renamed = {usual.get(name, name): value for name, value in message.items()}
        role = "from" if "from" in renamed and "role" not in renamed else "role"
        return renamed | {role: self.roles.get(str(renamed.get(role)), renamed.get(role))}

    def _trained(self, messages: Sequence[object], turns: Sequence[Turn], column: str) -> list[int]:
        """The places of the responses to train."""
        roles = [turn.role for turn in turns]
        answers = [i for i, role in enumerate(roles) if role == "assistant" and "user" in roles[:i]]
        if not self.all_turns:
            if not answers or answers[-1] != len(turns) - 1:
                raise RowError(
                    "no_last_answer",
                    f"field {column!r} must contain a user's message and end with the assistant's, found {roles[-3:]}",
                )
            if _is_context(messages[-1]):
                raise RowError(
                    "no_trained_turn",
                    f"field {column!r} says that its last message is not trained; with trained_turns: all the others "
                    f"are",
                )
            return answers[-1:]
        trained = [i for i in answers if not _is_context(messages[i])]
        if not trained:
            raise RowError("no_trained_turn", f"field {column!r} has no assistant's message to train")
        return trained

    def _response(
        self, turns: Sequence[Turn], place: int, tools: tuple[Mapping[str, object], ...], column: str
    ) -> Content | Unusable:
        asked = max(i for i in range(place) if turns[i].role == "user")
        number = place + 1 if self.all_turns else None
        try:
            values, left_out = self._values(turns[place], column)
        except RowError as error:
            if number is None:
                raise
            return Unusable(error.reason, str(error), number)
        return Content(
            turns[asked].content,
            values,
            tuple(turns[:asked]),
            left_out,
            tool_turns=tuple(turns[asked + 1 : place]),
            tools=tools,
            message=number,
        )

    def _values(self, turn: Turn, column: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """The segments of a response, whose calls and thoughts may be in fields of their own."""
        fields = turn.fields or {}
        thought = next((str(fields[name]) for name in _THOUGHTS if fields.get(name)), "")
        if calls := turn.tool_calls:
            if thought and turn.content.strip():
                raise RowError("text_beside_call", "a message with a thought and tool calls has further text")
            return {self._segment_of_calls(): text_of_calls(calls), **self._thought(thought or turn.content)}, ()
        if not turn.content.strip():
            raise RowError("empty_field", f"field {column!r} has an assistant's message without text")
        if thought:
            return {self._segment_of_answer(): turn.content, **self._thought(thought)}, ()
        return segmented(turn.content, self.rules, self.contract)

    def _segment_of_calls(self) -> str:
        name = self.contract.tool_call_segment
        if name is None:
            raise RowError(
                "no_segment_of_calls",
                "a response calls a tool, and the contract has no segment with value: tool_call "
                "(configs/contracts/tools.yaml has one)",
            )
        return name

    def _segment_of_answer(self) -> str:
        names = [segment.name for segment in self.contract.key_segments if segment.value != "tool_call"]
        return _only(names, "key segment", "its text")

    def _thought(self, text: str) -> dict[str, str]:
        if not text.strip():
            return {}
        names = [segment.name for segment in self.contract.segments if not segment.key]
        return {_only(names, "segment that is not key", "its thought"): text}


def _only(names: Sequence[str], what: str, of: str) -> str:
    if len(names) != 1:
        raise RowError(
            "not_segmented",
            f"a response has a field with its thought, and the contract has {len(names)} instead of one {what} for "
            f"{of}; write the response as one text",
        )
    return names[0]


def _messages(row: Row, column: str) -> list[object]:
    """The messages of a column: a list, or what older data sets of the hub have, a mapping of lists."""
    value = find(row, column)
    if not isinstance(value, Mapping):
        return items(row, column)
    lists = [items(value, name) for name in value]
    if len({len(each) for each in lists}) != 1:
        raise RowError("missing_field", f"field {column!r} must be a list of messages, or equally long lists of fields")
    return [dict(zip(value, fields, strict=True)) for fields in zip(*lists, strict=True)]


def _turn(message: object, column: str) -> Turn:
    if not isinstance(message, Mapping):
        raise RowError("missing_field", f"field {column!r} must contain messages with 'role' and 'content'")
    is_sharegpt = "from" in message and "role" not in message
    given = text(message, "from" if is_sharegpt else "role")
    role = _ROLES.get(given)
    if role is None:
        raise RowError(
            "unknown_role", f"field {column!r} has a message of role {given!r}; use system, user, assistant, tool"
        )
    content = _content(message, "value" if is_sharegpt else "content")
    if given == "function_call":
        return Turn(role, "", {"tool_calls": [call_in(content)]})
    fields: dict[str, object] = {name: optional_text(message, name) for name in _READ_BY_TEMPLATES if message.get(name)}
    if calls := calls_of(message):
        fields["tool_calls"] = calls
    if role in ("system", "user") and not content.strip():
        raise RowError("empty_field", f"field {column!r} has a message of role {given!r} without text")
    return Turn(role, content, fields if fields and role in ("assistant", "tool") else None)


def _content(message: Mapping[str, object], name: str) -> str:
    """The text of a message; "" if there is none, as beside calls of tools."""
    value = message.get(name)
    if isinstance(value, list):
        return "".join(_parts(value, name))
    if value is None and "tool_calls" not in message:
        return text(message, name)
    return optional_text(message, name)


def _parts(parts: Sequence[object], name: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield require_unicode(part, f"field {name!r}")
        elif isinstance(part, Mapping) and part.get("type") == "text":
            yield optional_text(part, "text")
        else:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RowError("not_text", f"a message contains a part of type {kind!r}; only text can be trained")


def _is_context(message: object) -> bool:
    """Whether the data say that a response is not trained: ``weight: 0`` is OpenAI's way to say so."""
    return isinstance(message, Mapping) and (message.get("weight") == 0 or message.get("train") is False)
