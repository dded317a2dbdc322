"""References against one another: different ones must differ, and each must equal itself in other spellings."""

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.benchmarks.answers.pairs import Checks, Judged

_POWER = re.compile(r"(-?[\d.]+) *\\(?:times|cdot) *10\^\{?(-?\d+)\}?")
_UNIT = re.compile(r"^(\\?[$£€]|Rs\.?) *| *(\\?%|[A-Za-z./°^²³0-9]*[A-Za-z°]+\d?\.?)$")
_COMMAND_OR_TEXT = re.compile(r"(\\text *\{[^}]*\}|\\mathrm *\{[^}]*\}|\\[A-Za-z]+)")


@dataclass(frozen=True)
class Compared:
    """Two texts of which the first was taken as the answer.

    Attributes:
        why: how the second was made from the first, or why the two denote the same; empty where nobody knows.
    """

    answer: str
    reference: str
    judged: Judged
    why: str


def minerva_references(file: Path) -> list[str]:
    """What is boxed in each solution, each text once."""
    return [text for text in dict.fromkeys(_last_boxed(row["solution"]) for row in _rows(file)) if text]


def aqua_questions(file: Path) -> list[tuple[str, dict[str, str], str]]:
    """Question with its options as lines, text by letter, and the right letter."""
    questions = []
    for row in _rows(file):
        options = {option[0]: option[2:].strip() for option in row["options"]}
        listed = [f"{letter}. {text}" for letter, text in options.items()]
        questions.append(("\n".join([row["question"], *listed]), options, row["correct"]))
    return questions


def equal_pairs(references: Sequence[str], checks: Checks, limit_minutes: float) -> tuple[int, list[Compared]]:
    """How many pairs of different texts were compared as ``math`` within the time, and those found equal.

    The pairs come in an arbitrary order, always the same, so that those compared are a fair sample where time runs out.
    """
    pairs = list(combinations(references, 2))
    random.Random(0).shuffle(pairs)
    stop = time.monotonic() + 60 * limit_minutes
    number, equal = 0, []
    for first, second in pairs:
        if time.monotonic() > stop:
            break
        number += 1
        judged = checks("math", first, second)
        if judged.word == "correct":
            equal.append(Compared(first, second, judged, explanation(first, second)))
    return number, equal


def confused_options(
    questions: Iterable[tuple[str, dict[str, str], str]], checks: Checks
) -> tuple[int, list[Compared]]:
    """Wrong options, as letter and as text, that are taken for the right one; and right ones that are not."""
    number, confused = 0, []
    for question, options, right in questions:
        for letter, text in options.items():
            is_right = letter == right
            if not is_right and text == options[right]:
                continue
            for answer in (letter, text):
                number += 1
                judged = checks("option", answer, right, question)
                if (judged.word == "correct") != is_right and not _is_twice(text, options):
                    confused.append(Compared(answer, f"{right}. {options[right]}", judged, ""))
    return number, confused


def unequal_respellings(references: Sequence[str], checks: Checks) -> tuple[int, list[Compared]]:
    """How many respellings were compared, each with the original, and those that are not found equal."""
    number, unequal = 0, []
    for reference in references:
        for name, respelt in respellings(reference):
            number += 1
            judged = checks("math", respelt, reference)
            if judged.word != "correct":
                unequal.append(Compared(respelt, reference, judged, name))
    return number, unequal


def respellings(text: str) -> Iterator[tuple[str, str]]:
    """The text itself and others that say the same, by name: at least four."""
    yield "itself", text
    yield "with a full stop", f"{text}."
    yield "spaces outside", f"  {text} "
    if "$" not in text:
        yield "in dollar signs", f"${text}$"
        yield "boxed", rf"\boxed{{{text}}}"
    yield "spaces around operators", _outside_commands(text, lambda part: re.sub(r"(?<=[\w)}\]])([+=])", r" \1 ", part))
    for name, old, new in (
        ("dfrac", r"\frac", r"\dfrac"),
        ("tfrac", r"\frac", r"\tfrac"),
        ("left and right taken away", r"\left", ""),
        ("left and right added", "(", r"\left("),
    ):
        if old in text and (name != "left and right added" or r"\left" not in text):
            yield name, _sized(text, name, old, new)
    if re.fullmatch(r"\d{4,}", text):
        yield "thousands comma", f"{int(text):,}"
        yield "LaTeX thousands comma", f"{int(text):,}".replace(",", "{,}")


def explanation(first: str, second: str) -> str:
    """Why two texts denote the same: one number, with a unit or without, or one formula but for spaces and brackets."""
    values = [_number(text) for text in (first, second)]
    if values[0] is not None and values[0] == values[1]:
        return "one number"
    if _bare(first) == _bare(second):
        return "one formula"
    has_unit = [value is None for value in values]
    if sum(has_unit) == 1 and _number(_UNIT.sub("", first)) == _number(_UNIT.sub("", second)):
        return "one number, once without its unit"
    return ""


def _sized(text: str, name: str, old: str, new: str) -> str:
    respelt = text.replace(old, new)
    if name == "left and right taken away":
        return respelt.replace(r"\right", "")
    return respelt.replace(")", r"\right)") if name == "left and right added" else respelt


def _outside_commands(text: str, change: Callable[[str], str]) -> str:
    parts = _COMMAND_OR_TEXT.split(text)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def _number(text: str) -> Fraction | None:
    plain = _POWER.sub(r"\1e\2", text.strip().strip("$")).replace("{,}", "").replace(",", "")
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


def _bare(text: str) -> str:
    return re.sub(r"\s|\\left|\\right|[{}]", "", text)


def _is_twice(text: str, options: dict[str, str]) -> bool:
    return list(options.values()).count(text) > 1


def _last_boxed(solution: str) -> str:
    _, found, rest = solution.rpartition(r"\boxed{")
    if not found:
        return ""
    depth = 1
    for position, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:position].strip()
    return ""


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
