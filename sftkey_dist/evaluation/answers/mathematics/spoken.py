"""English number words, such as ``minus one hundred and five``, ``two point five`` or ``three quarters``."""

import re
from fractions import Fraction

from sftkey_dist.evaluation.answers.vocabulary import word_list

_ONES = word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")
_SMALL = {word: value for value, word in enumerate(_ONES)} | {word: 10 * (i + 2) for i, word in enumerate(_TENS)}
_SCALES = {"dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
_ORDINALS = {"first": 1, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "ninth": 9, "twelfth": 12}
_ORDINALS |= {
    f"{word}th": value
    for word, value in _SMALL.items()
    if 4 <= value < 20 and word not in ("five", "eight", "nine", "twelve")
}
_BETWEEN = {"hundred", "and", "a", "an", "point"}
_MAX_WORDS = 20
_WORD = re.compile(r"[a-z]+")


def spoken_number(text: str) -> tuple[Fraction, str] | None:
    """The number in words at the beginning of a text, and the text after it; None if there is none."""
    words = [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text.lower())][:_MAX_WORDS]
    if not words or text[: words[0][1]].strip(" -"):
        return None
    names = [word for word, *_ in words]
    if [name for name in names if name != "the"] == names[-1:] and names[-1] in _ORDINALS:  # third, the third
        return Fraction(_ORDINALS[names[-1]]), ""
    signs = 1 if names[0] in ("minus", "negative") else 0
    for count in range(_length(names[signs:]), 0, -1):
        value = _value(names[signs : signs + count])
        if value is not None:
            return (-value if signs else value), text[words[signs + count - 1][2] :]
    return None


def _length(words: list[str]) -> int:
    """The number of words at the beginning that may belong to a number."""
    known = [word in _SMALL or word in _SCALES or word in _BETWEEN or _part(word) for word in words]
    return known.index(False) if False in known else len(words)


def _part(word: str) -> bool:
    return (word if word in _PARTS else word.removesuffix("s")) in _PARTS


def _divisor(word: str) -> int:
    return _PARTS[word if word in _PARTS else word.removesuffix("s")]


def _value(words: list[str]) -> Fraction | None:
    """The number that all the words form together; None if they form none."""
    if words and words[-1] in _SCALES and any(_part(word) or word == "point" for word in words[:-1]):
        value = _value(words[:-1] if words[-2] != "a" else words[:-2])  # two and a half million, half a million
        return None if value is None else value * _SCALES[words[-1]]
    if "point" in words:
        return _with_point(words)
    if words and _part(words[-1]):
        return _with_part(words[:-1], _divisor(words[-1]))
    return _whole(words)


def _whole(words: list[str]) -> Fraction | None:
    total, current, last = 0, 0, ""
    for place, word in enumerate(words):
        if word in _SMALL:
            if last in _SMALL and not (_SMALL[last] >= 20 and 0 < _SMALL[word] < 10):  # `five six` is not a number
                return None
            current += _SMALL[word]
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in _SCALES:
            total, current = total + max(current, 1) * _SCALES[word], 0
        elif not _may_stand(word, place, len(words)):
            return None
        last = word
    return Fraction(total + current) if words and words != ["a"] else None


def _may_stand(word: str, place: int, count: int) -> bool:
    """Whether an article or `and` is at a place that is possible in a number."""
    return (word in ("a", "an") and place == 0 and count > 1) or (word == "and" and 0 < place < count - 1)


def _with_point(words: list[str]) -> Fraction | None:
    place = words.index("point")
    whole = _whole(words[:place]) if place else Fraction(0)
    digits = [_SMALL.get(word, 10) for word in words[place + 1 :]]
    if whole is None or not digits or max(digits) > 9:
        return None
    return whole + Fraction(int("".join(map(str, digits))), 10 ** len(digits))


def _with_part(words: list[str], divisor: int) -> Fraction | None:
    """A fraction such as ``three quarters``, ``two and a half`` or ``a third``."""
    if "and" in words:
        place = words.index("and")
        whole, over = _whole(words[:place]), _with_part(words[place + 1 :], divisor)
        return None if whole is None or over is None else whole + over
    over = Fraction(1) if words in ([], ["a"], ["an"]) else _whole(words)
    return None if over is None or (not words and divisor != 2) else over / divisor
