"""The grammar of responses that keep a contract, in the syntax of llguidance, which extends Lark's.

A grammar describes what `ResponseContract.render` writes: the marks exactly as they are written, with values between
them that the contract reads back and whose checks hold. It is made of the same pieces as a training example.

Marks and texts form one terminal where possible: a lexer takes the longest match of a terminal and never goes back, so
that a terminal for a text alone would take the beginning of the tag that closes it. A terminal ends only before a JSON
value, which is no regular language, and before a special token.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.contract.parts import THINKING_TAGS, Form, Piece
from sftkey_dist.contract.response import ResponseContract
from sftkey_dist.contract.response_schema import number_schema, value_schema
from sftkey_dist.contract.segment import Segment
from sftkey_dist.errors import ConfigError

GRAMMAR_VERSION = 1
"""Increase this number when the grammar of a contract changes."""

Joining = Callable[[Sequence[Piece]], Sequence[Piece]]

# A model has learned the tokens of each mark alone. By default, two marks would be forced into the tokens of their
# joined text, which may cross the border between them.
_OPTIONS = '%llguidance {"no_forcing": true}'
_MAX_OPTIONAL = 5
_ANY, _SOME = "/(?s:.*)/", "/(?s:.+)/"
_NOT_BLANK = r"/(?s:.*)[^\s\x1c-\x1f](?s:.*)/"
_CHARACTER = r'([^"\\\x00-\x1f]|\\["\\bfnrt])'
_STRING = rf'/{_CHARACTER}*([^"\\\s\x00-\x1f]|\\["\\b]){_CHARACTER}*/'
"""The text of a JSON string that is not blank. It has no escapes by number, which could write half a character."""
_UNESCAPED = r'/[^"\\\x00-\x1f]*/'


@dataclass(frozen=True)
class _Terminal:
    """Text that matches a regular expression, in Lark's syntax; ``text`` is that of a mark, which it is literally."""

    expression: str
    text: str = ""


@dataclass(frozen=True)
class _Text(_Terminal):
    """Text that matches a regular expression and contains no mark."""


@dataclass(frozen=True)
class _Json:
    """A JSON value, by its schema as JSON."""

    schema: str


@dataclass(frozen=True)
class _Token:
    """A special token, which no text can spell."""

    id: int


_Symbol = _Terminal | _Json | _Token


def response_grammar(
    contract: ResponseContract,
    form: Form,
    end_of_turn_id: int,
    special_tokens: Mapping[int, str],
    joining: Joining = list,
) -> str:
    """The grammar of a response and of the token that ends it.

    Args:
        contract: the contract.
        form: form of the response.
        end_of_turn_id: id of the token that ends a response.
        special_tokens: texts of the tokenizer's special tokens, by id.
        joining: the pieces of a response as they continue its prompt, which may end with the first mark.

    Raises:
        ConfigError: the contract's format has no grammar.
        ContractError: the response cannot continue the prompt.
    """
    optional = sum(not segment.required for segment in contract.segments)
    if optional > _MAX_OPTIONAL:
        raise ConfigError(
            f"evaluation.guided=true: the contract has {optional} optional segments, of which a grammar can have at "
            f"most {_MAX_OPTIONAL}; set evaluation.guided=false, or require some of them"
        )
    outlines = contract.outlines(form)
    marks = tuple(dict.fromkeys(piece.text for outline in outlines for piece in outline if piece.is_mark))
    opened = [text.strip() for text in marks if text.strip() in THINKING_TAGS]  # perhaps at the end of the prompt
    if not marks:
        raise ConfigError("evaluation.guided=true: the contract has no mark, so there is no format to keep")
    parts = _Parts(contract, form, marks, {text: token_id for token_id, text in special_tokens.items() if text})
    names: dict[_Symbol, str] = {}
    responses = [
        " ".join(
            names.setdefault(symbol, _name(symbol, len(names))) for symbol in _joined(parts.of(joining(outline)), marks)
        )
        for outline in outlines
    ]
    return "\n".join(
        [
            _OPTIONS,
            f"start: ({' | '.join(dict.fromkeys(responses))}) <[{end_of_turn_id}]>",
            f"MARK: {_one_of([*marks, *opened])}",
            *(f"{name}: {_definition(symbol)}" for symbol, name in names.items() if not isinstance(symbol, _Token)),
            "",
        ]
    )


@dataclass(frozen=True)
class _Parts:
    """The symbols of the pieces of a response."""

    contract: ResponseContract
    form: Form
    marks: Sequence[str]
    special_tokens: Mapping[str, int]

    def of(self, pieces: Sequence[Piece]) -> Iterator[_Symbol]:
        segments = {segment.name: segment for segment in self.contract.segments}
        before = ""
        for piece in pieces:
            if piece.is_mark:
                yield from self._mark(piece.text)
            else:
                yield self._after(before, self._value(segments[piece.segment]))
            before = piece.text

    def _after(self, mark: str, value: _Symbol) -> _Symbol:
        """The value after a mark, which must not continue it to a longer mark."""
        rests = [other.removeprefix(mark) for other in self.marks if mark and other != mark and other.startswith(mark)]
        if not rests or not isinstance(value, _Text):
            return value
        return _Text(f"({value.expression} & ~({_one_of(rests)} {_ANY}))")

    def _mark(self, text: str) -> Iterator[_Symbol]:
        tokens = "|".join(map(re.escape, self.special_tokens))
        for part in re.split(f"({tokens})", text) if tokens else [text]:
            if part in self.special_tokens:
                yield _Token(self.special_tokens[part])
            elif part:
                yield _Terminal(_quoted(part), part)

    def _value(self, segment: Segment) -> _Symbol:
        check, is_json = segment.check, self.form is Form.TAGGED and self.contract.container == "json"
        in_string = is_json and segment.value == "text"
        if check is not None and check.one_of is not None:
            return _Terminal(_one_of([_as_string(text) for text in check.one_of] if in_string else check.one_of))
        if is_json and not in_string:
            return _Json(json.dumps(value_schema(segment)))
        if check is not None and check.number is not None:
            return _Json(json.dumps(number_schema(check.number)))
        if check is not None and check.json_schema is not None:
            if in_string:
                raise ConfigError(
                    f"evaluation.guided=true: JSON within a string, as the check json_schema of segment {segment.name} "
                    f"asks for, has no grammar; set evaluation.guided=false, or value: json"
                )
            return _Json(json.dumps(check.json_schema))
        if check is not None and check.regex is not None:
            matched = f"({_regex(check.regex)} & {_NOT_BLANK})"
            return _Terminal(f"({matched} & {_UNESCAPED})") if in_string else _Text(matched)
        return _Terminal(_STRING) if in_string else _Text(_NOT_BLANK)


def _joined(symbols: Iterator[_Symbol], marks: Sequence[str]) -> list[_Symbol]:
    """The symbols with adjacent terminals as one, and with texts that end at the first mark."""
    ended: list[_Symbol] = []
    for symbol in symbols:
        if ended and isinstance(ended[-1], _Text) and isinstance(symbol, _Terminal):
            # Neither may its end, with the beginning of the mark, spell a mark; prefixes of the mark are no others.
            others = [mark for mark in marks if mark == symbol.text or not symbol.text.startswith(mark)]
            both = f"{_without_marks(ended[-1])} {symbol.expression}"
            ended[-1] = _Terminal(f"(({both}) & ~({_ANY} {_one_of(others)} {_SOME}))")
        else:
            ended.append(symbol)
    joined: list[_Symbol] = []
    for symbol in ended:
        if not isinstance(symbol, _Terminal):
            joined.append(symbol)
            continue
        expression = _without_marks(symbol) if isinstance(symbol, _Text) else symbol.expression
        if joined and isinstance(last := joined[-1], _Terminal):
            joined[-1] = _Terminal(f"{last.expression} {expression}")
        else:
            joined.append(_Terminal(expression))
    return joined


def _without_marks(text: _Text) -> str:
    return f"({text.expression} & ~({_ANY} MARK {_ANY}))"


def _name(symbol: _Symbol, number: int) -> str:
    if isinstance(symbol, _Token):
        return f"<[{symbol.id}]>"
    return f"PART_{number}" if isinstance(symbol, _Terminal) else f"json_{number}"


def _definition(symbol: _Terminal | _Json) -> str:
    return symbol.expression if isinstance(symbol, _Terminal) else f"%json {symbol.schema}"


def _one_of(texts: Sequence[str]) -> str:
    return f"({' | '.join(map(_quoted, dict.fromkeys(texts)))})"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _as_string(text: str) -> str:
    """A text as it is written within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _regex(pattern: str) -> str:
    """A regular expression of a check as a literal, in which slashes and line breaks are escaped."""
    escaped = re.sub(r"\\.|/|\n", lambda match: {"/": r"\/", "\n": r"\n"}.get(match[0], match[0]), pattern, flags=re.S)
    return f"/(?s:{escaped})/"
