"""Characters that steer what shows a text, or that nobody sees: made visible wherever foreign text is shown.

Text of data, models and servers may hold them. `on_one_line` is for places that hold one line, `without_control` for
those that hold several; `INVISIBLE` is for whoever escapes them.
"""

import re

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS = "\u2028\u2029"
_ZERO_WIDTH = "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164"
_ZERO_WIDTH += "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
_TAGS = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_SURROGATES, _PRIVATE = "\ud800-\udfff", "\ue000-\uf8ff\U000f0000-\U0010ffff"

INVISIBLE = f"[\\x00-\\x1f\\x7f-\\x9f{_BIDIRECTIONAL}{_SEPARATORS}{_ZERO_WIDTH}{_TAGS}{_SURROGATES}{_PRIVATE}]"
"""A pattern of one character: controls, line separators, bidirectional and zero-width characters, variation selectors,
tags, lone surrogates, and those for private use."""

_STEERS = re.compile(f"[{_BIDIRECTIONAL}{_SEPARATORS}{_TAGS}{_SURROGATES}]")
_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_PICTURES_BUT_SPACES = {code: sign for code, sign in _PICTURES.items() if chr(code) not in "\t\n\r"}


def without_control(text: str) -> str:
    """The text with a sign for each character that steers what shows it, one for one; line ends and tabs stay."""
    return _STEERS.sub("\ufffd", text.translate(_PICTURES_BUT_SPACES))


def on_one_line(text: str) -> str:
    """The text in one line, runs of white space as single spaces, and as `without_control` leaves it."""
    return without_control(" ".join(text.split()))
