"""Answers: short spans without markup. Narrows spans to answers, refuses unsuitable ones, and compares them."""

# ruff: noqa: RUF001

import re

from sftkey_dist.data.segmenting import wording

Span = tuple[int, int]

MAX_CHARACTERS = 120
MAX_CHARACTERS_OF_MATHEMATICS = 300
_MAX_WORDS = 12
_MAX_WORDS_OF_A_UNIT = 3

_EMPHASIS = re.compile(r"(\*\*\*|\*\*|__|\*|`)(?=\S)([^*_`\n]+?)(?<=\S)\1(?!\w)")
_LEFT = re.compile(r"(?:[\s*`]+|_+(?=\w)|>+\s+)+")
_LONGEST_TO_NARROW = 1000
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "‘": "’", "'": "'"}
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|bf|mbox)\s*\{([^{}]*)\}")
_WHOLE_BOX = re.compile(r"(?:\$\$?|\\\(|\\\[)?\s*\\boxed\s*\{(.*)\}\s*[.,]?\s*(?:\$\$?|\\\)|\\\])?", re.DOTALL)
_OPTION_WITH_BRACKET = re.compile(r"[A-Ja-j](?=[)\]]\Z)")
_NAMED_OPTION = re.compile(r"(?:option|choice|选项)\s*(?=\(?[A-Ja-j](?:[).]|\Z))", re.IGNORECASE)
_BRACKETED_OPTION = re.compile(r"\(\s*(?:option|choice)\s+([A-Ja-j])\s*\)", re.IGNORECASE)
_OPTION_THEN_TEXT = re.compile(r"\(?[A-J][.)]+\s+(.+)", re.DOTALL)
_CALCULATION = re.compile(r"<<[^<>]*>>")
_ABBREVIATION = re.compile(r"(?:\b\w\.){2,}\Z")
_TAG = re.compile(
    r"</?(?:b|i|u|em|strong|code|br|p|div|span|sub|sup|think|thinking|answer|final|font)(?:\s+[\w-]+=[^<>]*)?\s*/?>|"
    r"<\|[^<>|]*\|>|\[/?INST\]",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"\*\*|~~|==(?=\S)|__(?=\w)|`|^#+\s|&(?:[a-z]+|#\d+);|^\||\|\s*\||(?<![\w*])\*[^\s*][^*]*\*(?![\w*])|\\boxed|!?\[[^\]]*\]\("
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\b|\\[\[\]]")
_BLANK = re.compile(r"(?:[\W_]|\\(?:ldots|dots|cdots|quad))*")
_SYMBOL_ANSWERS = frozenset("∞∅∞√⊥⊤✓✗±")
_FIRST_PART = r"\(?[A-J]\)?|[$€£¥]?[-+−]?\d[\d,.]*\s*[%°]?"
_APPOSITION = re.compile(
    rf"(?:{_FIRST_PART})(?:[a-zA-Z ]{{0,16}})\s*(?:,|;|:\s|–|—| - |\()\s*(?=\S*[^\W\d])\S+\s+\S+\s+\S.*", re.DOTALL
)
_NUMBER_WITH_WORDS = re.compile(
    r"[$€£¥]?\s?([-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?)\s*([%°]|[^\W\d][^\d]*)?", re.DOTALL
)
_STARTS_WITH_A_VALUE = re.compile(rf"(?:{_FIRST_PART})(?!\w)(.*)", re.DOTALL)
_EXCLAIMED = re.compile(r"[\d.,]*\d!")
_SYMBOLS_AT_THE_END = re.compile(r"(?<=\S)\s*[\u2600-\u27bf\U0001f000-\U0001faff\ufe0f\s]+\Z")
_FEWEST_WORDS_OF_A_SENTENCE = 4
_OPTION_WITH_TEXT = re.compile(r"\(?([A-J])\)\s*\S.*|[(\[]?([A-J])[)\]]?", re.DOTALL)
_OPTION_MARK = re.compile(r"\A\w{1,2}\)\s")
_OPEN, _CLOSED = "([{", ")]}"


def narrow(text: str, span: Span) -> Span:
    """Remove emphasis, quotation marks, a box, punctuation and white space around the text of a span.

    Dollar signs are kept: they either delimit mathematics or are the currency of a number. A text that is far too long
    for an answer is returned unchanged.
    """
    if "```" in text[slice(*span)]:
        return span
    before = None
    while span != before and span[1] - span[0] <= _LONGEST_TO_NARROW:
        before = span
        for step in (_without_ends, _without_wrapping):
            span = step(text, span)
    return span


def emphasised_part(text: str, span: Span) -> Span | None:
    """The span of the only emphasised words at the start of a span, if a short unit follows them; otherwise None."""
    found = list(_EMPHASIS.finditer(text, *span))
    if len(found) != 1 or text[span[0] : found[0].start()].strip():
        return None
    rest = text[found[0].end() : span[1]]
    is_unit = (
        any(map(str.isalnum, rest)) and len(rest.split()) <= _MAX_WORDS_OF_A_UNIT and not re.search(r"[,;:()]|\d", rest)
    )
    return found[0].span(2) if is_unit else None


def without_emphasis(text: str, span: Span) -> Span:
    """A span without the emphasis around the whole of it."""
    found = _EMPHASIS.fullmatch(text, *span)
    return found.span(2) if found else span


def why_no_answer(text: str, is_mathematics: bool = False) -> str:
    """Why a text is not suitable as an answer to train, as a short, stable name; "" if it is suitable.

    Args:
        text: the answer, narrowed.
        is_mathematics: whether it was in a box, where line breaks and environments are part of a formula.
    """
    limit = MAX_CHARACTERS_OF_MATHEMATICS if is_mathematics else MAX_CHARACTERS
    checks = (
        ("answer_too_long", len(text) > limit),
        ("several_lines", "\n" in text and not is_mathematics),
        ("cut_off", not is_mathematics and not _is_balanced(text)),
    )
    problem = next((name for name, is_so in checks if is_so), "") or why_never_trained(text, is_mathematics)
    is_formula = is_mathematics and ("\\" in text or len(text.split()) < _FEWEST_WORDS_OF_A_SENTENCE)
    return problem or ("" if is_formula else _why_no_statement(text))


def why_never_trained(text: str, is_mathematics: bool = False) -> str:
    """Why a text is never an answer, whoever proposes it: it is blank, a heading or contains markup; "" if not."""
    if (
        text.endswith(("...", "…"))
        or wording.PLACEHOLDER.fullmatch(text)
        or (_BLANK.fullmatch(text) and not _SYMBOL_ANSWERS.intersection(text))
    ):
        return "empty_answer"
    if _has_markup(text, is_mathematics):
        return "markup"
    return "heading" if not is_mathematics and wording.HEADING.fullmatch(text) else ""


def same_answer(one: str, other: str) -> bool:
    """Whether two answers differ in notation only.

    Case, spacing, currency, brackets, thousands separators and a final full stop are ignored, and so is a unit or the
    text of an option that only one of them contains.
    """
    return _bare(one) == _bare(other) or _same_number(one, other) or _same_option(one, other)


def _without_ends(text: str, span: Span) -> Span:
    start, end = span
    left = _LEFT.match(text, start, end)
    start = left.end() if left else start
    part = text[start:end]
    symbols = _SYMBOLS_AT_THE_END.search(part)
    part = part[: symbols.start()] if symbols else part
    ending = wording.POLITE_END.search(part.rstrip("。. \t\n"))
    if ending and ending.start():
        part = part[: ending.start()]
    stripped = part.rstrip(" \t\r\n\f\v\u00a0*`,;。，！")
    stripped = stripped.rstrip("_") if not stripped.endswith("\\_") else stripped
    if stripped.endswith((".", "!")) and not stripped.endswith("..") and not _ABBREVIATION.search(stripped):
        is_factorial = stripped.endswith("!") and stripped[-2:-1].isalnum() and len(stripped.split()) == 1
        stripped = stripped if is_factorial else stripped[:-1]
    return start, start + len(stripped)


def _without_wrapping(text: str, span: Span) -> Span:
    start, end = span
    part = text[start:end]
    for pattern in (_WHOLE_BOX, _TEXT_COMMAND):
        inner = pattern.fullmatch(part)
        if inner and _is_balanced(inner[1]):
            return start + inner.start(1), start + inner.end(1)
    if _OPTION_WITH_BRACKET.match(part):
        return start, start + 1
    bracketed = _BRACKETED_OPTION.fullmatch(part)
    if bracketed:
        return start + bracketed.start(1), start + bracketed.end(1)
    words = _NAMED_OPTION.match(part) or _CALCULATION.match(part)
    if words:
        return start + words.end(), end
    if len(part) > 2 and _QUOTES.get(part[0]) == part[-1] and part[0] not in part[1:-1]:
        return start + 1, end - 1
    return span


def _has_markup(text: str, is_mathematics: bool) -> bool:
    if _TAG.search(text) or _MARKUP.search(text):
        return True
    return not is_mathematics and bool(_ENVIRONMENT.search(text))


def _is_balanced(text: str) -> bool:
    """Whether all brackets are balanced; options such as ``B)`` and intervals such as ``[0, 1)`` count as balanced."""
    text = _OPTION_MARK.sub("", text)
    if text.replace("\\{", "").count("{") != text.replace("\\}", "").count("}"):
        return False
    depth = 0
    for sign in text:
        depth += (sign in _OPEN) - (sign in _CLOSED)
        if depth < 0:
            return False
    return depth == 0 and text.count('"') % 2 == 0


_SAYS_MORE = (wording.SIGN_OFF, wording.SENTENCE, wording.NEGATED)


def _why_no_statement(text: str) -> str:
    option = _OPTION_THEN_TEXT.fullmatch(text)
    if option and any(pattern.match(f"{option[1]} it is") for pattern in _SAYS_MORE):
        return "explanation"
    value = _STARTS_WITH_A_VALUE.fullmatch(text)
    if value and wording.AFTER_A_VALUE.search(value[1]):
        return "explanation"
    checks = (
        ("negated", wording.NEGATED.match(text)),
        ("hedged", wording.HEDGED.search(text)),
        ("question", text.endswith(("?", "？")) or _EXCLAIMED.fullmatch(text)),
        ("alternatives", wording.ALTERNATIVES.search(text)),
        ("explanation", wording.EXPLAINED.search(text) or wording.ADDED.search(text) or _APPOSITION.fullmatch(text)),
        ("explanation", re.search(r"[^\W\d]{2,}[:：](?:\s|$)", text)),
        ("no_answer", wording.POINTS_ELSEWHERE.fullmatch(text)),
        ("sentence", wording.SENTENCE.match(text)),
        ("answer_too_long", len(re.findall(r"[^\W\d_]{2,}", text)) > _MAX_WORDS),
    )
    return next((name for name, is_so in checks if is_so), "")


def _bare(answer: str) -> str:
    return re.sub(r"[\s$,()*]|\\[!,;]|\\text\b|[{}]", "", answer).casefold().rstrip(".")


def _same_number(one: str, other: str) -> bool:
    numbers = [_NUMBER_WITH_WORDS.fullmatch(answer.strip(" .$")) for answer in (one, other)]
    if not all(found and any(map(str.isdigit, found[1])) for found in numbers):
        return False
    values, units = zip(*((_value(found[1]), _bare(found[2] or "")) for found in numbers if found), strict=True)
    return values[0] == values[1] and (units[0] == units[1] or "" in units)


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def _same_option(one: str, other: str) -> bool:
    found = [_OPTION_WITH_TEXT.fullmatch(answer.strip()) for answer in (one, other)]
    if not all(found):
        return False
    letters = [option[1] or option[2] for option in found if option]
    return letters[0] == letters[1] and any(option[2] for option in found if option)
