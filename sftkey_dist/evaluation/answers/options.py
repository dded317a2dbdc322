"""Multiple choice: which option of a question an answer names, by its letter, its number or its text."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sftkey_dist.evaluation.answers.choice import Mention, choose, without_inner
from sftkey_dist.evaluation.answers.statement import first_paragraph, unwrapped, without_lead
from sftkey_dist.evaluation.answers.text import folded, normalized
from sftkey_dist.evaluation.answers.vocabulary import word_list, words

_OPTION_LINE = re.compile(r"^[^\S\n]*[*(\[]*([A-Za-z]|\d{1,2})[*]*[.):\]][*)\]]*\s{0,40}(\S.*)$", re.MULTILINE)
_NAME_ALONE = re.compile(
    r"^[*(\[{\s]{0,6}(?:(?:option|choice|answer|letter)\s*)?[*(\[{]{0,4}([A-Za-z]|\d{1,2})[*)\]}.:]{0,6}$",
    re.IGNORECASE,
)
_NAME_AND_TEXT = re.compile(
    r"^[*(\[]*([A-Za-z]|\d{1,2})[*]*[.):\],][*)\]]*\s*(\S.*)$|^[*(\[]*([A-Z])[*)\]]+\s+(\S.*)$", re.DOTALL
)
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|mathsf|textrm|mbox)\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?<![A-Za-z0-9_'’.\\-])[*(\[{]{0,4}(?:([A-Z])|(?<=\()([a-z])(?=\)))[)\]}*]{0,4}(?![A-Za-z0-9_'’(])(?!-\w)"
)
_NAMED = re.compile(
    r"(?:option|choice|answer(?:\s+is)?|letter|number)[\s:*(]*([A-Za-z]|\d{1,2})\b(?!['’.]\w)", re.IGNORECASE
)
_ORDINALS = word_list("first second third fourth fifth sixth seventh eighth ninth tenth")
_ORDINAL = re.compile(rf"\b({'|'.join(_ORDINALS)})\s+(?:option|choice|answer|alternative)\b", re.IGNORECASE)
_WORD_BEHIND = re.compile(r"\s+([a-z]+)")
_MAY_FOLLOW_A = words(
    "is because since as and or nor but seems would was are which looks fits best only with for "
    "matches makes rather instead over than says appears describes"
)
_MAY_FOLLOW_I = words("is because since and or nor but seems")
_MAX_CHARACTERS = 6000
_MAX_MENTIONS, _MAX_LINES = 100, 200
_NO_OPTION = "?"
"""Prefix of a name that no option has."""
_ASIDE = re.compile(r"\([^()]{4,}\)")
_ARTICLE = re.compile(r"^(?:an?|the)\s+")


@dataclass(frozen=True)
class Option:
    """The name of the option that a text chooses, such as B, and whether the text contains nothing else."""

    name: str
    is_plain: bool


def options_of(question: str) -> dict[str, str]:
    """The options that a question lists, text by name, with one per line, such as ``B. make more phone calls``.

    Options have letters from A on, or numbers from 1 on. Other lines that begin with a letter or number do not count.
    """
    listed = [(name.upper(), text.strip()) for name, text in _OPTION_LINE.findall(question)[-_MAX_LINES:]]
    for names in ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", tuple(map(str, range(1, 27)))):
        options = _longest_run(listed, names)
        if len(options) > 1:
            return options
    return {name: text for name, text in listed if name.isalpha()}


def read_option(text: str, options: Mapping[str, str]) -> Option | None:
    """The option that a text is or chooses; None if it names none or several."""
    text = _without_latex(text.strip()[-_MAX_CHARACTERS:])
    text = re.sub(r"[ \t]{2,}", " ", re.sub(r"\n\s*\n", "\n\n", text)).strip()
    bare = unwrapped(text)
    whole_texts = (bare, unwrapped(without_lead(bare)))
    for each in whole_texts:
        name = _whole(each, options)
        if name is not None:
            return Option(name, is_plain=True)
    if any(_contradicts_itself(each, options) for each in whole_texts):
        return None
    last = without_lead(unwrapped(text.strip().rpartition("\n")[2])) if "\n" in text.strip() else ""
    for line in (last, first_paragraph(text)):
        if line and (name := _whole(unwrapped(line), options)) is not None:
            return Option(name, is_plain=False)
    without_asides = _ASIDE.sub(" ", text)
    if _mentions(without_asides, options):
        text = without_asides
    chosen = choose(text, lambda clause: _mentions(clause, options))
    return None if chosen is None or chosen.startswith(_NO_OPTION) else Option(chosen, is_plain=False)


def _longest_run(listed: list[tuple[str, str]], names: tuple[str, ...] | str) -> dict[str, str]:
    """The last of the longest lists of lines whose names begin with the first name and are in order."""
    best: dict[str, str] = {}
    for start, (first, _) in enumerate(listed):
        if first != names[0]:
            continue
        run: dict[str, str] = {}
        for name, text in listed[start:]:
            if len(run) < len(names) and name == names[len(run)]:
                run[name] = text
        best = run if len(run) >= len(best) else best
    return best


def _without_latex(text: str) -> str:
    before = None
    while text != before:
        before, text = text, _LATEX.sub(r"\1", text)
    return text


def _whole(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text is: its text, its name, or its name before its text."""
    readings = _readings_of(options)
    for plain in readings:
        by_text = [name for name, option in options.items() if plain(option) == plain(text)]
        if len(by_text) == 1 and not (_NAME_ALONE.match(text) and _known(text, options)):
            return by_text[0]
    alone = _NAME_ALONE.match(text.replace("$", ""))
    if alone:
        return _known(alone[1], options)
    both = _NAME_AND_TEXT.match(text)
    name = _known(both[1] or both[3], options) if both else None
    if both is None or name is None or name not in options:
        return None
    same = readings[-1]
    return name if same(options[name]) == same(both[2] or both[4]) else None


def _contradicts_itself(text: str, options: Mapping[str, str]) -> bool:
    """Whether a text is the text of one option after the name of another, or after a name that no option has."""
    both = _NAME_AND_TEXT.match(text)
    if both is None:
        return False
    same = _readings_of(options)[-1]
    of_text = [name for name, option in options.items() if same(option) == same(both[2] or both[4])]
    return bool(of_text) and (both[1] or both[3]).upper() not in of_text


def _mentions(text: str, options: Mapping[str, str]) -> list[Mention]:
    """The mentions of options by name or by text; a letter inside the text of an option is not a mention."""
    found = [Mention(name, *match.span()) for name, match in _text_matches(text, options)]
    found += _named_mentions(text, options)
    for match in _ORDINAL.finditer(text):
        place = _ORDINALS.index(match[1].lower())
        if place < len(options):
            found.append(Mention(list(options)[place], *match.span()))
    for match in _LETTER.finditer(text):
        name = _known(match[1] or match[2], options)
        if name is None and match.group().startswith("(") and options:  # a choice, although there is no such option
            name = f"{_NO_OPTION}{match[1] or match[2]}"
        if name is not None and _is_name(text, match):
            found.append(Mention(name, *match.span()))
    return without_inner(sorted(found, key=lambda mention: mention.start)[-_MAX_MENTIONS:])


def _named_mentions(text: str, options: Mapping[str, str]) -> list[Mention]:
    """The names after a word such as "option"; an article or pronoun there is not a name."""
    found = []
    for match in _NAMED.finditer(text):
        name = _known(match[1], options)
        follows = _WORD_BEHIND.match(text, match.end())
        is_article = match[1] in "aAI" and follows is not None and follows[1] not in _MAY_FOLLOW_A
        is_small = match[1].islower() and match[1] in "ai" and follows is not None
        if name is not None and not is_article and not is_small:
            found.append(Mention(name, match.start(1), match.end(1)))
    return found


def _text_matches(text: str, options: Mapping[str, str]) -> list[tuple[str, re.Match[str]]]:
    lowered = text.casefold() if len(text.casefold()) == len(text) else text.lower()
    found = []
    for name, option in options.items():
        pattern = _text_pattern(option)
        if pattern is not None:
            found += [(name, match) for match in pattern.finditer(lowered)]
    return found


@lru_cache(maxsize=1024)
def _text_pattern(option: str) -> re.Pattern[str] | None:
    """A pattern of the text of an option; None for a single letter, which may be the name of another option."""
    parts = _without_article(option).split()
    if not parts or (len(parts) == 1 and len(parts[0]) == 1):
        return None
    return re.compile(r"(?<![\w.,-])\$?" + r"\s+".join(map(re.escape, parts)) + r"(?![\w%])(?![.,]\d)")


def _is_name(text: str, match: re.Match[str]) -> bool:
    """Whether a letter is the name of an option and not an article, a pronoun or the first word of a sentence."""
    letter = match[1] or match[2]
    if letter not in "AI" or match.group().strip("*") != letter:
        return True
    follows = _WORD_BEHIND.match(text, match.end())
    if follows is None:
        return not (letter == "I" and text[match.end() :].lstrip()[:1].isalpha())
    return follows[1] in (_MAY_FOLLOW_A if letter == "A" else _MAY_FOLLOW_I)


def _readings_of(options: Mapping[str, str]) -> Sequence[Callable[[str], str]]:
    """How texts of options are compared: as they are written if some differ only in case or marks, as aa and Aa do."""
    if len({_plain(text) for text in options.values()}) < len(set(map(_as_written, options.values()))):
        return (_as_written,)
    return (_plain, _without_spaces, _without_article)


def _as_written(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split()).removesuffix(".")


def _plain(text: str) -> str:
    return normalized(text.replace("\\$", "$").replace("$", "").replace("\\%", "%"))


def _without_article(text: str) -> str:
    return _ARTICLE.sub("", _plain(text)) or folded(text)


def _without_spaces(text: str) -> str:
    return re.sub(r"\s+", "", _plain(text))


def _known(name: str, options: Mapping[str, str]) -> str | None:
    """The name of an option, in upper case; None if it is unknown. Without a list of options, every letter is known."""
    name = name.strip("*()[]{}.: ").upper()
    return name if name in options or (not options and name.isalpha()) else None
