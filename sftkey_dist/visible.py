"""Characters that steer what shows a text, or that nobody sees: made visible wherever foreign text is shown.

Text of data, models and servers may hold them, and so may names of files. Each medium has one function that makes text
of it, which calls one of these: `console.PlainConsole`, `report.markdown.escaped`, `report.plots`, `report.page`.
"""

import re

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS = "\u2028\u2029"
_ZERO_WIDTH = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f"
_ZERO_WIDTH += "\u3164\ufe00-\ufe0f\ufeff\uffa0"
_TAGS = "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_SURROGATES, _PRIVATE, _NONE = "\ud800-\udfff", "\ue000-\uf8ff\U000f0000-\U0010ffff", "\ufffe\uffff"

INVISIBLE = f"[\\x00-\\x1f\\x7f-\\x9f{_BIDIRECTIONAL}{_SEPARATORS}{_ZERO_WIDTH}{_TAGS}{_SURROGATES}{_PRIVATE}{_NONE}]"
"""A pattern of one character: controls, line separators, bidirectional and zero-width characters, variation selectors,
tags, lone surrogates, those for private use, and what is no character."""

_INVISIBLE = re.compile(INVISIBLE)
_STEERS = re.compile(f"[{_BIDIRECTIONAL}{_SEPARATORS}{_TAGS}{_NONE}]")
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def without_control(text: str) -> str:
    """The text with a sign for each character that steers what shows it, one for one; line ends and tabs stay."""
    return _STEERS.sub("\ufffd", text.translate(_PICTURES))


def encodable(text: str) -> str:
    """The text with an escape for each lone surrogate, which no encoding writes."""
    return text.encode(errors="backslashreplace").decode()


def on_one_line(text: str) -> str:
    """The text in one line, with an escape for each character that nobody sees."""
    return _INVISIBLE.sub(lambda match: match.group().encode("unicode_escape").decode(), " ".join(text.split()))
