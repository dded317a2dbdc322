"""The deterministic checks, by the name or the settings that a configuration gives."""

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sftkey_dist.config.answer_check import AnswerCheck, FunctionCheck, JsonCheck, LabelCheck, RegexCheck
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.answers.maths import same_expression
from sftkey_dist.evaluation.answers.numbers import last_quantity, same_quantity, surely_differ
from sftkey_dist.evaluation.answers.options import chosen_option, options_of
from sftkey_dist.evaluation.answers.text import normalized
from sftkey_dist.evaluation.verdict import Judgement, Verdict


@dataclass(frozen=True)
class Case:
    """An answer, what it should be, and what was asked."""

    answer: str
    reference: str
    question: str = ""


Check = Callable[[Case], Judgement]


def make_check(settings: AnswerCheck) -> Check:
    """The check that a configuration names; what every check has in common is done here.

    An empty answer is wrong, an empty reference says nothing, and the reference's own text is right.

    Raises:
        ConfigError: a function of the user's cannot be loaded, or `auto` was not resolved.
    """
    return partial(_checked, _own_check(settings))


def _checked(check: Check, case: Case) -> Judgement:
    if not case.reference.strip():
        return Judgement.unjudged("the reference is empty")
    if case.answer.strip() == case.reference.strip():
        return Judgement.of(True, certain=True)
    judgement = check(case)
    if not case.answer.strip() and judgement.verdict is not Verdict.UNJUDGED:  # a check that fits no reference says so
        return Judgement.of(False, "no answer", certain=True)
    return judgement


def _own_check(settings: AnswerCheck) -> Check:
    if isinstance(settings, RegexCheck):
        return partial(_check_regex, re.compile(settings.regex))
    if isinstance(settings, LabelCheck):
        return partial(_check_label, settings.labels)
    if isinstance(settings, JsonCheck):
        return partial(_check_json, fields=settings.json_fields)
    if isinstance(settings, FunctionCheck):
        return partial(_check_by_function, _load_function(settings.function))
    if settings not in _BY_NAME:
        raise ConfigError(f"evaluation.answer_check: {settings!r} cannot be used here; give labels, as {{labels: […]}}")
    return _BY_NAME[settings]


def _check_exact(case: Case) -> Judgement:
    same = normalized(case.answer) == normalized(case.reference)
    return Judgement.of(same, certain=same)


def _check_numeric(case: Case) -> Judgement:
    """Of several numbers in a text the last counts."""
    expected, found = last_quantity(case.reference), last_quantity(case.answer)
    if expected is None:
        return Judgement.unjudged("the reference holds no number")
    if found is None:
        return Judgement.of(False, "no number in the answer")
    same = same_quantity(found, expected)
    certain = found.alone and expected.alone if same else surely_differ(found, expected)
    return Judgement.of(same, certain=certain)


def _check_math(case: Case) -> Judgement:
    """Symbolic equality of LaTeX or plain expressions (math-verify)."""
    same = same_expression(case.reference, case.answer)
    return (
        Judgement.unjudged("no expression, or one that takes too long to compare")
        if same is None
        else Judgement.of(same)
    )


def _check_option(case: Case) -> Judgement:
    options = options_of(case.question)
    expected, found = chosen_option(case.reference, options), chosen_option(case.answer, options)
    if expected is None:
        return Judgement.unjudged("the reference names no option of the question")
    if found is None:
        return Judgement.of(False, "the answer names no option, or several")
    return Judgement.of(found == expected, certain=True)


def _check_label(labels: tuple[str, ...], case: Case) -> Judgement:
    expected, found = _label_in(case.reference, labels), _label_in(case.answer, labels)
    if expected is None:
        return Judgement.unjudged("the reference is none of the labels")
    if found is None:
        return Judgement.of(False, "the answer names no label, or several")
    return Judgement.of(found == expected, certain=normalized(case.answer) == normalized(found))


def _label_in(text: str, labels: tuple[str, ...]) -> str | None:
    """The one label that a text is, or else names."""
    exactly = [label for label in labels if normalized(label) == normalized(text)]
    named = [label for label in labels if re.search(rf"(?<!\w){re.escape(normalized(label))}(?!\w)", text.casefold())]
    # of `approve` and `approve with conditions` the longer one is meant
    longest = [label for label in named if not any(label != other and label in other for other in named)]
    found = exactly or longest
    return found[0] if len(found) == 1 else None


def _check_json(case: Case, fields: tuple[str, ...] = ()) -> Judgement:
    """Equal values, numbers as numbers and texts as `_check_exact` has them; with fields, those alone."""
    try:
        expected = json.loads(case.reference)
    except (ValueError, RecursionError):
        return Judgement.unjudged("the reference is not JSON")
    try:
        found = json.loads(case.answer)
    except (ValueError, RecursionError):
        return Judgement.of(False, "the answer is not JSON")
    for field in fields or ("",):
        if field and _field(expected, field) is None:
            return Judgement.unjudged(f"the reference has no field {field}")
        if not _equal(_field(found, field), _field(expected, field)):
            return Judgement.of(False, f"{field or 'the value'} differs", certain=True)
    return Judgement.of(True, certain=True)


def _field(value: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return normalized(one) == normalized(other)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)  # else true would be 1


def _check_regex(pattern: re.Pattern[str], case: Case) -> Judgement:
    expected, found = _last_match(pattern, case.reference), _last_match(pattern, case.answer)
    if expected is None:
        return Judgement.unjudged("the regular expression does not match the reference")
    if found is None:
        return Judgement.of(False, "the regular expression does not match the answer")
    return Judgement.of(normalized(found) == normalized(expected), certain=True)


def _last_match(pattern: re.Pattern[str], text: str) -> str | None:
    """What counts in the last match that has anything: its last group with text, or all of it without groups."""
    found = [match.group() if not pattern.groups else match[match.lastindex or 0] for match in pattern.finditer(text)]
    return next((text for text in reversed(found) if text), None)


def _check_by_function(function: Callable[[str, str, str], Any], case: Case) -> Judgement:
    try:
        outcome = function(case.answer, case.reference, case.question)
    except Exception as error:  # whatever a user's function raises; one bad row must not lose the others
        return Judgement.unjudged(f"the function raised {type(error).__name__}: {str(error)[:100]}")
    return Judgement.unjudged("the function cannot tell") if outcome is None else Judgement.of(bool(outcome))


@lru_cache(maxsize=8)
def _load_function(reference: str) -> Callable[[str, str, str], Any]:
    place, _, name = reference.rpartition(":")
    try:
        function = getattr(_load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place), name)
    except Exception as error:  # a file of the user's may raise anything
        raise ConfigError(f"answer_check.function {reference!r}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ConfigError(f"answer_check.function {reference!r} is no function")
    return function  # type: ignore[no-any-return]


def _load_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_BY_NAME: dict[Any, Check] = {
    "exact": _check_exact,
    "numeric": _check_numeric,
    "math": _check_math,
    "option": _check_option,
    "json": _check_json,
}
