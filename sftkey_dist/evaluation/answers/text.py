"""Texts that say the same: case, white space, quotes and punctuation around them aside."""

import re

_WRAPPED = re.compile(r"^(?:\*\*|__|`|\$)(.+)(?:\*\*|__|`|\$)$", re.DOTALL)
_QUOTES = " \t\r\n\"'`*\u201c\u201d\u2018\u2019"
_END = _QUOTES + ".,;:!?"


def normalized(text: str) -> str:
    """The text as it is compared."""
    folded = " ".join(text.casefold().split())
    wrapped = _WRAPPED.match(folded)
    text = wrapped.group(1) if wrapped else folded
    return text.lstrip(_QUOTES).rstrip(_END) or text
