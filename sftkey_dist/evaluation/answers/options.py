"""Multiple choice: which of a question's options an answer names, by letter or by text."""

import re
from collections.abc import Mapping

from sftkey_dist.evaluation.answers.text import normalized

_OPTION_LINE = re.compile(r"^\s*[(\[]?([A-Za-z])[.):\]]\s*(\S.*)$", re.MULTILINE)
_LETTER = r"[*(\[]*([A-Za-z])[*)\].:]*"
_LEAD = r"(?:\W*(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice)\W*(?:is\b)?[\s*:]*)?"
_LETTER_ALONE = re.compile(rf"^\s*{_LEAD}{_LETTER}\s*$", re.IGNORECASE)
_LETTER_FIRST = re.compile(r"^\s*[*(\[]*([A-Za-z])[*]*[).:\]][*)]*\s+(\S.*)$", re.DOTALL)
_LETTER_NAMED = re.compile(r"\b(?i:answer|option|choice)\b\W{0,4}(?:(?:is|:)\W{0,4})?([A-Z])\b(?!')")
_LETTER_OPENS = re.compile(r"^\s*[*(\[]*([B-HJ-Z])[*)\]]*\s+(?!(?:or|and)\b)[a-z]")
"""`B because …`; A and I begin sentences of their own."""
_WRAPPERS = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\s*\{([^{}]*)\}|\$")
_ARTICLE = re.compile(r"^(?:an?|the)\s+")


def options_of(question: str) -> dict[str, str]:
    """Letter to text of the options that a question lists, one a line, such as ``B. make more phone calls``."""
    return {letter.upper(): text.strip() for letter, text in _OPTION_LINE.findall(question)}


def chosen_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer names; None when it names none, or several."""
    answer = _WRAPPERS.sub(r"\1", answer)
    alone = _LETTER_ALONE.match(answer)
    if alone:
        return _known(alone.group(1), options)
    by_text = [letter for letter, text in options.items() if _plain(text) == _plain(answer)]
    if len(by_text) == 1:
        return by_text[0]
    first = _LETTER_FIRST.match(answer)
    if first and _known(first.group(1), options):
        return first.group(1).upper()
    named = {_known(letter, options) for letter in _LETTER_NAMED.findall(answer)} - {None}
    if len(named) == 1:
        return named.pop()
    held = [letter for letter, text in options.items() if _holds(answer, text)]
    if len(held) == 1 and not named:
        return held[0]
    opens = _LETTER_OPENS.match(answer)
    return _known(opens.group(1), options) if opens and not named else None


def _holds(answer: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(_plain(text))}(?!\w)", _plain(answer)) is not None


def _plain(text: str) -> str:
    """The text without an article in front."""
    return _ARTICLE.sub("", normalized(text))


def _known(letter: str, options: Mapping[str, str]) -> str | None:
    """Without a list of options every letter is one."""
    return letter.upper() if not options or letter.upper() in options else None
