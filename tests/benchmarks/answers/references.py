"""References against one another: different ones must differ, and each must equal itself in other spellings."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.benchmarks.answers.pairs import Checks, Judged

_POWER = re.compile(r"(-?[\d.]+) *\\(?:times|cdot) *10\^\{?(-?\d+)\}?")
_COMMAND_OR_TEXT = re.compile(r"(\\text *\{[^}]*\}|\\mathrm *\{[^}]*\}|\\[A-Za-z]+)")


@dataclass(frozen=True)
class Reference:
    """Attributes:
    topic: what its problem belongs to; pairs of one topic are the likelier ones to be confused.
    """

    text: str
    topic: str


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


def minerva_references(file: Path) -> list[Reference]:
    """What is boxed in each solution, each text once."""
    found = {_last_boxed(row["solution"]): row["type"] for row in _rows(file)}
    return [Reference(text, topic) for text, topic in found.items() if text]


def aqua_questions(file: Path) -> list[tuple[str, dict[str, str], str]]:
    """Question with its options as lines, text by letter, and the right letter."""
    questions = []
    for row in _rows(file):
        options = {option[0]: option[2:].strip() for option in row["options"]}
        listed = [f"{letter}. {text}" for letter, text in options.items()]
        questions.append(("\n".join([row["question"], *listed]), options, row["correct"]))
    return questions


def equal_pairs(references: Sequence[Reference], checks: Checks, same_topic_only: bool) -> tuple[int, list[Compared]]:
    """How many pairs of different texts were compared as ``math``, in one order, and those found equal."""
    number, equal = 0, []
    for first, second in combinations(references, 2):
        if same_topic_only and first.topic != second.topic:
            continue
        number += 1
        judged = checks("math", first.text, second.text)
        if judged.word == "correct":
            equal.append(Compared(first.text, second.text, judged, explanation(first.text, second.text)))
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


def unequal_respellings(references: Sequence[Reference], checks: Checks) -> tuple[int, list[Compared]]:
    """How many respellings were compared, each with the original, and those that are not found equal."""
    number, unequal = 0, []
    for reference in references:
        for name, respelt in respellings(reference.text):
            number += 1
            judged = checks("math", respelt, reference.text)
            if judged.word != "correct":
                unequal.append(Compared(respelt, reference.text, judged, name))
    return number, unequal


def respellings(text: str) -> Iterator[tuple[str, str]]:
    """The text itself and others that say the same, by name: at least four."""
    yield "itself", text
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
    """Why two texts denote the same, where they are one number or one formula with other spaces and brackets."""
    values = [_number(text) for text in (first, second)]
    if values[0] is not None and values[0] == values[1]:
        return "one number"
    return "one formula" if _bare(first) == _bare(second) else ""


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
