"""Replaces numbers, dates and derivatives that are written in several tokens by one token."""

import re

from sftkey_dist.evaluation.answers.mathematics.notation import simplified
from sftkey_dist.evaluation.answers.vocabulary import word_list

_DERIVATIVE = re.compile(r"(?<![A-Za-z\\])d\s*([A-Za-z])\s*/\s*d\s*([A-Za-z])(?![A-Za-z])")
_HEXADECIMAL = re.compile(
    r"(?<!\w)0[xX]([0-9A-Fa-f]{1,16})(?!\w)|(?<!\w)((?=\w*[A-F])(?=\w*\d|[A-F]{2})[0-9A-F]{2,16})_\{?16\}?"
)
_MODULO = re.compile(r"\(\s*mod\s+(\w+)\s*\)")
_OUT_OF = re.compile(r"(?<!\d)(\d+)\s+out of\s+(\d+)")
_DECIMAL_COMMA = re.compile(
    # after groups separated by points, or before a word or a currency, where it does not separate items of a list
    r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d{1,2})(?!\d)"
    r"|(?<![\d.,(\[{])(\d+),(\d{1,2})(?=\s?(?:[€£%]|(?!and\b|or\b|und\b)[A-Za-z]))"
)
_DECADE = re.compile(r"(?<![\d.])(\d{3}0)s\b")
_MONTHS = word_list("january february march april may june july august september october november december")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DATE = re.compile(
    rf"(?<!\w){_MONTH}\s+(?P<day>\d{{1,2}})(?:,?\s+(?P<year>\d{{4}}))?(?!\d)"
    rf"|(?<!\w)(?P<day2>\d{{1,2}})\s+{_MONTH.replace('month', 'month2')}(?:,?\s+(?P<year2>\d{{4}}))?(?!\w)",
    re.IGNORECASE,
)
_BEFORE_CHRIST = re.compile(r"(?<!\d)(\d+)\s*(?:BCE|BC|B\.C\.)(?!\w)")
_REPEATING = re.compile(r"(?<!\d)(\d+)\.(\d*)\s*\\(?:overline|bar|dot)\s*\{?\s*(\d+)\s*\}?")


def prepared(text: str, *, with_units: bool) -> str:
    """The text in one notation, with a single token for each number and date."""
    simple = _DERIVATIVE.sub(r"\\frac{d \1}{d \2}", _HEXADECIMAL.sub(_decimal, simplified(text)))
    simple = _REPEATING.sub(_repeating_decimal, simple)
    simple = _MODULO.sub(r" \\pmod{\1}", _OUT_OF.sub(r"\1/\2", simple))
    if with_units:
        simple = _DECIMAL_COMMA.sub(_decimal_point, simple)
        simple = re.sub(r"\bnoon\b", "12:00 pm", re.sub(r"\bmidnight\b", "12:00 am", simple))
        simple = _BEFORE_CHRIST.sub(r"-\1", _DECADE.sub(lambda m: f"{m[1]}-{int(m[1]) + 9}", simple))
        simple = _DATE.sub(_iso_date, simple)
    return simple


def _decimal(match: re.Match[str]) -> str:
    return str(int(match[1] or match[2], 16))


def _decimal_point(match: re.Match[str]) -> str:
    whole, part = match[1] or match[3], match[2] or match[4]
    return f"{whole.replace('.', '')}.{part}"


def _iso_date(match: re.Match[str]) -> str:
    """The date in ISO format; the year is 0 if it is missing."""
    name, day, year = (match[part] or match[f"{part}2"] for part in ("month", "day", "year"))
    month = next(i for i, each in enumerate(_MONTHS, start=1) if each.startswith(name.lower()[:3]))
    return f"{int(year or 0):04d}-{month:02d}-{int(day):02d}"


def _repeating_decimal(match: re.Match[str]) -> str:
    whole, plain, repeated = match.groups()
    scale = 10 ** len(plain)
    numerator = int(whole + plain) * (10 ** len(repeated) - 1) + int(repeated)
    return f"(({numerator})/({scale * (10 ** len(repeated) - 1)}))"
