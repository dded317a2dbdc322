"""Converts plain text, Unicode and LaTeX to one notation, and splits it into tokens.

Only markup without meaning is dropped: spacing commands, sizes of brackets, and styles.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_CHARACTERS = 2000
"""Maximum length of a formula; of a longer text the last part is read, as an answer stands at the end."""
CURRENCY_DOLLAR = "\ue000"
"""Stands for a dollar sign that means money, so that the other ones can be taken for delimiters of mathematics."""
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT = re.compile("[₀-₉]+")
LINE_BREAK = "\ue001"
"""Stands for the two backslashes that end a row of a matrix."""
_GREEK_LETTER = re.compile("[Α-Ωα-λν-ω]|μ(?![A-Za-z])")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_VULGAR_FRACTION = re.compile("(\\d?)\\s*([¼½¾⅐-⅞])")
_SAME_CHARACTERS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "‐": "-",
        "‑": "-",
        "﹣": "-",
        "’": "'",
        "‘": "'",
        "′": "'",
        "″": "''",
        "⁄": "/",
        "∕": "/",
        "√": "\\sqrt ",
        "×": "*",
        "·": "*",
        "⋅": "*",
        "∙": "*",
        "∗": "*",
        "÷": "/",
        "π": "\\pi ",
        "∞": "\\infty ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
        "≈": "\\approx ",
        "±": "\\pm ",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "∈": "\\in ",
        "∪": "\\cup ",
        "∩": "\\cap ",
        "∅": "\\emptyset ",
        "→": "\\to ",
        "…": "\\ldots ",
        "。": ".",
        "，": ",",
        "º": "°",
        "˚": "°",
    }
)
_SAME_COMMANDS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", ""),
        (r",\\!|\{,\}|(?<=\d)\\[,;:](?=\d{3}(?!\d))", ","),
        (r"\\text\s*\{\s*([apAP])\.?\s*([mM])\.?\s*\}", r" \1\2"),
        (r"\\!", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|strut)(?![A-Za-z])", " "),
        (r"\\(?:[,;:> ]|q?quad(?![A-Za-z]))|~|\\hspace\{[^{}]*\}", " "),
        (r"\\(?:long)?rightarrow(?![A-Za-z])", r"\\to "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\{([^{}]+)\\over(?![A-Za-z])\s*([^{}]+)\}", r"\\frac{\1}{\2}"),
        (r"\{([^{}]+)\\choose(?![A-Za-z])\s*([^{}]+)\}", r"\\binom{\1}{\2}"),
        (r"\\nabla\s*\\times(?![A-Za-z])", r"\\curl "),
        (r"\\nabla\s*\\cdot(?![A-Za-z])", r"\\divergence "),
        (r"\\pounds(?![A-Za-z])\s*", "£"),
        (r"\\euro(?![A-Za-z])\s*", "€"),
        (r"\\cents?(?![A-Za-z])", "¢"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        # digits in groups of three
        (r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![.,]?\d)", lambda m: m.group().replace(" ", "")),
        (r"(?<!\d)(\d{1,2}) ?o'clock\b", r"\1:00"),
        (r"(?<=\d)[_'](?=\d{3}(?!\d))", ""),
        (r"(?<![\w'])(\d+)'\s*(\d+)(?:\"|'')", r"\1 ft \2 inch"),
        (r"(?<![\w.])(\d+)(?:st|nd|rd|th)\b", r"\1"),
        (r"\\dbinom|\\tbinom", r"\\binom"),
        (r"\^\s*\{?\s*\\circ\s*\}?", "°"),
        (r"\\degree(?![A-Za-z])", "°"),
        (r"\^\s*\{((?:\s*\\prime)+)\s*\}|\^\s*(\\prime)(?![A-Za-z])", lambda m: "'" * m.group().count("prime")),
        (r"\\%", "%"),
        (r"\\leq?(?:slant)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq?(?:slant)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq?(?![A-Za-z])|!=(?!=)", r"\\ne "),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])", "*"),
        (r"\*\*", "^"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\(?:l|c|d)?dots[cbm]?(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\b(?:np|numpy|math|sympy)\.(?=[a-z])", ""),
        (r"\bper cent\b", "percent"),
        (r"\bu\.s\.\s*(?=\$|dollar)", ""),
    )
]
_MATHEMATICS = re.compile(
    r"\$\$(.+?)\$\$|\\\(((?:[^\\]|\\[^()])+?)\\\)|\\\[((?:[^\\]|\\[^\[\]])+?)\\\]"
    # a closing dollar sign follows a character other than white space, and no digit follows it
    r"|\$((?:[^$\s]|[^$]*?[^$\s]))\$(?!\d)",
    re.DOTALL,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TOKEN = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2}|\d{4}/\d{2}/\d{2}|\d{1,2}/\d{1,2}/\d{4})(?![\w/-])"
    r"|(?P<clock>\d{1,2}(?::\d{2}){0,2}\s*(?:[aApP][mM](?![A-Za-z])|[aApP]\.\s?[mM](?![A-Za-z])\.?)|\d+(?:\s?:\s?\d+(?:,\d{3})*)+(?![\d:.]))"
    r"|(?P<number>(?:(?P<grouped>\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?![\d,]\d)|\d+)(?:\.\d+|\.(?=\s*[/*^]))?"
    r"(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|\\(?:text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mbox|hbox|operatorname|mathsf|textsf)\s*\*?"
    r"\s*\{(?P<text>[^{}]*)\}"
    r"|(?P<command>\\(?:[A-Za-z]+|.))"
    r"|(?P<word>[^\W\d_]+)"
    r"|(?P<mark>\S)",
    re.DOTALL,
)
_OPENING, _CLOSING = {"(", "[", "\\{"}, {")", "]", "\\}"}


@dataclass(frozen=True)
class Token:
    """A piece of a text.

    Attributes:
        kind: date, clock, number, text (a word inside a command for words), command, word, or mark (one character).
        text: as simplified; of a number without the thousands' separators.
        start: where it begins in the simplified text.
        end: where it ends.
    """

    kind: str
    text: str
    start: int
    end: int


def last_part(text: str, longest_characters: int) -> str:
    """The text, or the part of it that is not too long, which begins at a blank line or a space in its first half.

    Delimiters of mathematics are pairs, and a cut between the two of a pair would exchange mathematics and prose.
    """
    if len(text) <= longest_characters:
        return text
    part = text[-longest_characters:]
    boundary = next((each for each in ("\n\n", " ") if each in part[: longest_characters // 2]), "")
    return f"… {part.partition(boundary)[2]}" if boundary else part


def simplified(text: str) -> str:
    """The text, or its last part, in one notation. A dollar sign that means money becomes `CURRENCY_DOLLAR`."""
    text = last_part(text, LONGEST_CHARACTERS).replace("\\\\", LINE_BREAK).replace("\\$", CURRENCY_DOLLAR)
    text = re.sub(
        r"\$\s*\$(?!\d)", " ", _MATHEMATICS.sub(lambda match: f" {next(filter(None, match.groups()))} ", text)
    )
    text = text.replace("$", CURRENCY_DOLLAR)
    text = _SUPERSCRIPT.sub(lambda match: f"^{{{match.group().translate(_SUPERSCRIPTS)}}}", text)
    text = _SUBSCRIPT.sub(lambda match: f"_{{{match.group().translate(_SUBSCRIPTS)}}}", text)
    text = _VULGAR_FRACTION.sub(_plain_fraction, text)
    text = unicodedata.normalize("NFKC", text.translate(_SAME_CHARACTERS)).translate(_SAME_CHARACTERS)
    text = _GREEK_LETTER.sub(_command_of, text)
    for pattern, replacement in _SAME_COMMANDS:
        text = pattern.sub(replacement, text)
    return text


def tokens_of(simple: str) -> list[Token]:
    """The tokens of a simplified text. A comma separates items inside brackets; elsewhere it may group thousands."""
    return list(_tokens(simple))


def spans_of_mathematics(text: str) -> list[str]:
    """The texts between delimiters of mathematics."""
    text = text.replace("\\$", CURRENCY_DOLLAR)
    return [next(filter(None, match.groups())) for match in _MATHEMATICS.finditer(text)]


def boxed(text: str) -> list[str]:
    """The contents of boxes, in order."""
    return [text[start:end] for start, end in _boxes(text)]


def without_box(text: str) -> str:
    """The contents of a text that is a single box; any other text as it is."""
    boxes = boxed(text)
    whole = _BOXED.match(text.strip().strip("$").strip())
    return boxes[0] if whole and len(boxes) == 1 and text.strip(" \t\n$.").endswith("}") else text


def _boxes(text: str) -> Iterator[tuple[int, int]]:
    end = 0
    for match in _BOXED.finditer(text):
        if match.start() < end:
            continue
        end = _closing_brace(text, match.end())
        yield match.end(), end


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    return len(text)


def _command_of(match: re.Match[str]) -> str:
    """The command for a Greek letter: ``\\theta`` for θ."""
    size, _, name = unicodedata.name(match.group()).removeprefix("GREEK ").partition(" LETTER ")
    name = name.removeprefix("FINAL ").lower().replace("lamda", "lambda")
    return f"\\{name.capitalize() if size == 'CAPITAL' else name} "


def _plain_fraction(match: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", match[2]).partition("⁄")
    return f"{match[1]} {over}/{under}" if match[1] else f"{over}/{under}"


def _tokens(simple: str) -> Iterator[Token]:
    place, depth = 0, 0
    while place < len(simple):
        match = _TOKEN.match(simple, place)
        if match is None:  # white space
            place += 1
            continue
        kind, end = str(match.lastgroup), match.end()
        if match["grouped"] and depth:
            end = match.start() + match["grouped"].index(",")
        if kind == "text":
            yield from _words_of(match)
        else:
            text = simple[match.start() : end].replace(",", "" if kind == "number" else ",")
            depth = max(0, depth + (text in _OPENING) - (text in _CLOSING))
            yield Token(kind, text, match.start(), end)
        place = end


def _words_of(match: re.Match[str]) -> Iterator[Token]:
    """The tokens inside a command for words; words are of the kind `text`, and other tokens as elsewhere."""
    start = match.start("text")
    for token in _tokens(match["text"]):
        kind = "text" if token.kind == "word" else token.kind
        yield Token(kind, token.text, start + token.start, start + token.end)
