"""Numbers in texts, exactly: signs, thousands separators, fractions, percent, powers of ten in words, units."""

import re
from dataclasses import dataclass
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_LATEX_NOISE = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}|\\[,;!: ]|\\left|\\right")
_NUMBER = re.compile(
    # a sign touches its number: a dash before a space begins a list, or follows a word
    r"(?P<sign>(?<![\w)])[-\u2212](?=[\d.$€£¥]))?(?:(?P<currency>[$€£¥])\s?(?P<inner_sign>[-\u2212])?)?"
    rf"(?:(?P<whole>\d+)\s+(?P<over>\d+)\s*/\s*(?P<under>[1-9]\d*)|(?P<digits>{_DIGITS})"
    rf"(?:[eE](?P<exponent>[+-]?\d+))?(?:\s*/\s*(?P<denominator>[1-9]\d*))?)"
    r"(?P<scale>\s*(?:hundred|thousand|million|billion|trillion)\b)?\s*(?P<percent>%|percent\b|per cent\b)?",
    re.IGNORECASE,
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LARGEST_EXPONENT = 400
_MOST_DIGITS = 400
"""A model that repeats a digit for ever has written no number."""
_UNITS = {
    alias: unit
    for unit, aliases in {
        "second": "s sec secs second seconds",
        "minute": "min mins minute minutes",
        "hour": "h hr hrs hour hours",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "yr yrs year years",
        "metre": "m metre metres meter meters",
        "centimetre": "cm centimetre centimetres centimeter centimeters",
        "kilometre": "km kilometre kilometres kilometer kilometers",
        "mile": "mi mile miles",
        "foot": "ft foot feet",
        "inch": "inch inches",
        "gram": "g gram grams",
        "kilogram": "kg kilogram kilograms",
        "pound": "lb lbs pound pounds",
        "ounce": "oz ounce ounces",
        "litre": "l litre litres liter liters",
        "cent": "¢ cent cents",
        "dollar": "$ dollar dollars usd",
        "euro": "€ euro euros eur",
    }.items()
    for alias in aliases.split()
}


@dataclass(frozen=True)
class Quantity:
    """A number as a text gives it.

    Attributes:
        value: exact; a percentage is the number before the sign.
        is_percent: whether a percent sign follows.
        unit: a unit of measure that this module knows, else "".
        alone: whether the text holds nothing else, a unit of one word or a currency sign aside.
    """

    value: Fraction
    is_percent: bool
    unit: str
    alone: bool


def last_quantity(text: str) -> Quantity | None:
    """The last number of a text."""
    plain = _LATEX_FRACTION.sub(r" \1/\2", _LATEX_NOISE.sub(r" \1", text)).replace("\\$", "$").replace("\\%", "%")
    matches = list(_NUMBER.finditer(plain))
    if not matches:
        return None
    match = matches[-1]
    value = _value(match)
    if value is None:
        return None
    before, after = plain[: match.start()].strip(" \t\n*$(=\\[{"), plain[match.end() :].strip(" \t\n.*$)\\]}")
    word = re.match(r"[A-Za-z¢€$]+", plain[match.end() :].lstrip())
    unit = _UNITS.get(match["currency"] or "") or _UNITS.get(word.group().lower() if word else "", "")
    alone = not before and (not after or (word is not None and after.lower() == word.group().lower()))
    return Quantity(value, match["percent"] is not None, unit, alone)


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """Equal values; 50 % is 0.5 as well as 50; two known units must be one."""
    if one.unit and other.unit and one.unit != other.unit:
        return False
    if one.value == other.value:
        return True
    if one.is_percent == other.is_percent:
        return False
    percent, plain = (one, other) if one.is_percent else (other, one)
    return percent.value / 100 == plain.value


def surely_differ(one: Quantity, other: Quantity) -> bool:
    """Whether nobody would take one for the other: whole numbers alone, of one unit."""
    whole = one.value.denominator == other.value.denominator == 1
    plain = one.alone and other.alone and not (one.is_percent or other.is_percent)
    return whole and plain and one.unit == other.unit and one.value != other.value


def _value(match: re.Match[str]) -> Fraction | None:
    if any(len(part or "") > _MOST_DIGITS for part in match.groups()):
        return None
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > _LARGEST_EXPONENT:
        return None
    if match["whole"]:
        value = int(match["whole"]) + Fraction(int(match["over"]), int(match["under"]))
    else:
        value = Fraction(match["digits"].replace(",", "")) * Fraction(10) ** exponent / int(match["denominator"] or 1)
    value *= _SCALES.get((match["scale"] or "").strip().lower(), 1)
    return -value if match["sign"] or match["inner_sign"] else value
