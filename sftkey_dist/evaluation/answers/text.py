"""Comparison of texts regardless of case, white space, Unicode form, and quotes and punctuation around them."""

import re
import unicodedata

_WRAPPED = re.compile(r"^(\*\*|__|\*|_|`|\$)(?=\S)(.+)(?<=\S)\1$", re.DOTALL)
_FACTORIAL = re.compile(r"(?:[\d)]|(?<![^\W_])[^\W\d_])!+[.\s]*$")
"""A factorial at the end of a text: of a number, of brackets, or of a single letter."""
_MAX_LAYERS, _MAX_SIGNS = 16, 50
"""Maximum number of marks around a text, and of signs at its end, because a model may write thousands."""
_OPENING = "¡¿"
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e"
_END = ".,;:!?\u3002 "
_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_ON_KEYBOARDS = str.maketrans(
    _FULL_WIDTH
    | dict.fromkeys("\u2010\u2011\u2212\ufe63", "-")
    | dict.fromkeys("\u2018\u2019\u02bc\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e", '"')
)
"""Typographic characters, by code point, and the characters of a keyboard that replace them."""


def folded(text: str) -> str:
    """The text in one Unicode form and case, with single spaces, and with the quotes and hyphens of a keyboard."""
    text = unicodedata.normalize("NFC", text).translate(_ON_KEYBOARDS)
    return unicodedata.normalize("NFC", " ".join(text.casefold().split()))


def normalized(text: str) -> str:
    """The text in the form that is compared. Marks with a meaning, as in ``5!`` and ``f'``, are kept."""
    text = folded(text)
    for _ in range(_MAX_LAYERS):
        before = text
        text = _without_pair(text.strip()).lstrip(_OPENING)
        text = (
            text.rstrip(_END if not _FACTORIAL.search(text, max(0, len(text) - _MAX_SIGNS)) else ".").rstrip() or text
        )
        if text == before:
            break
    return text


def _without_pair(text: str) -> str:
    """The text without emphasis, quotes or brackets around all of it."""
    wrapped = _WRAPPED.match(text)
    if wrapped is not None and len(text) > 2:
        return wrapped[2]
    is_quoted = len(text) > 2 and text[0] in _QUOTES and text[-1] in _QUOTES
    is_bracketed = re.fullmatch(r"\([^()]+\)", text) is not None
    return text[1:-1] if is_quoted or is_bracketed else text


def is_same_but_for_case(one: str, other: str) -> bool:
    """Whether two texts differ at most in the case of their first letter, in white space and in a final full stop."""
    return _with_small_first(one) == _with_small_first(other)


def _with_small_first(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).split()).removesuffix(".")
    return text[:1].casefold() + text[1:] if len(text) > 2 else text
