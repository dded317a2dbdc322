"""The deterministic checks that a configuration can name.

Each check reads the reference and the answer in the same way and compares the two readings. Only the reference decides
whether an answer can be judged: what a model writes is correct or incorrect, never unjudged.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from sftkey_dist.config.answer_check import AnswerCheck, FunctionCheck, JsonCheck, LabelCheck, RegexCheck
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.answers.functions import judge_by_function, load_function
from sftkey_dist.evaluation.answers.labels import Label, read_label
from sftkey_dist.evaluation.answers.mathematics.equality import Equality, equality
from sftkey_dist.evaluation.answers.mathematics.formula import Number, nodes_of, units_of
from sftkey_dist.evaluation.answers.maths import Formula, read_mathematics, same_mathematics
from sftkey_dist.evaluation.answers.numbers import Quantity, read_quantity
from sftkey_dist.evaluation.answers.objects import MISSING, field_of, read_object, same_object
from sftkey_dist.evaluation.answers.options import Option, options_of, read_option
from sftkey_dist.evaluation.answers.text import is_same_but_for_case, normalized
from sftkey_dist.evaluation.answers.tool_calls import Calls, compare_calls, read_calls
from sftkey_dist.evaluation.verdict import Judgement
from sftkey_dist.patterns import compile_pattern, last_match

Reading = TypeVar("Reading")

_LONGEST_ERROR = 100


@dataclass(frozen=True)
class Case:
    """An answer, its reference, and the question."""

    answer: str
    reference: str
    question: str = ""


@dataclass(frozen=True)
class Check(Generic[Reading]):
    """A way to read answers and references, and to compare the readings.

    Attributes:
        read: returns the reading of a text, given the question; None if the text cannot be read.
        compare: judges the reading of an answer, given the reading of its reference.
        unreadable: what is wrong with a text that cannot be read, for the reason of a verdict.
        is_reference: whether a reading is clear enough to compare answers with.
    """

    read: Callable[[str, str], Reading | None]
    compare: Callable[[Reading, Reading], Judgement]
    unreadable: str
    is_reference: Callable[[Reading], bool] = lambda reading: True

    def __call__(self, case: Case) -> Judgement:
        """Judge an answer. It is unjudged only if the reference cannot be read."""
        expected, problem = self._read_reference(case.reference, case.question)
        if problem is not None:
            return Judgement.unjudged(problem)
        if not case.answer.strip():
            return Judgement.of(False, "no answer", certain=True)
        if case.answer.strip() == case.reference.strip():
            return Judgement.of(True, certain=True)
        found = self.read(case.answer, case.question)
        if found is None:
            return Judgement.of(False, f"the answer {self.unreadable}")
        return self.compare(expected, found)

    def problem_with(self, reference: str, question: str) -> str | None:
        """Why no answer can be compared with this reference; None if answers can be."""
        try:
            return self._read_reference(reference, question)[1]
        except Exception as error:  # a fault of a reader that some row reveals must not end the preparation
            return f"the reference makes the check raise {type(error).__name__}"

    def _read_reference(self, reference: str, question: str) -> tuple[Any, str | None]:
        """The reading of a reference, and the problem with it, if any."""
        if not reference.strip():
            return None, "the reference is empty"
        reading = self.read(reference, question)
        if reading is None:
            return None, f"the reference {self.unreadable}"
        return reading, None if self.is_reference(reading) else "the reference is a text with several readings"


@dataclass(frozen=True)
class FunctionOfUsers:
    """A check by a user's function, which is the only check that may leave an answer unjudged."""

    function: Callable[[str, str, str], object]

    def __call__(self, case: Case) -> Judgement:
        """Judge an answer."""
        problem = self.problem_with(case.reference, case.question)
        if problem is not None:
            return Judgement.unjudged(problem)
        if not case.answer.strip():
            return Judgement.of(False, "no answer", certain=True)
        return judge_by_function(self.function, case.answer, case.reference, case.question)

    def problem_with(self, reference: str, question: str) -> str | None:
        """Why no answer can be compared with a reference, as far as is known before the function is called."""
        return None if reference.strip() else "the reference is empty"


def judged_by_check(check: Callable[[Case], Judgement], case: Case) -> Judgement:
    """The judgement of a check, also if the check raises an exception.

    If the check also raises when the reference itself is the answer, the answer is not the cause and stays unjudged.
    """
    try:
        return check(case)
    except Exception as error:  # a fault of a reader that some output reveals must not end the evaluation
        failure = f"{type(error).__name__}: {str(error)[:_LONGEST_ERROR]}"
    try:
        check(replace(case, answer=case.reference))
    except Exception:
        return Judgement.unjudged(f"the check raised {failure}")
    return Judgement.of_unjudgeable("check_raised", f"the check raised {failure} on this answer")


def make_check(settings: AnswerCheck) -> Check[Any] | FunctionOfUsers:
    """The check that a configuration names.

    Raises:
        ConfigError: A user's function cannot be loaded, or `auto` was not resolved.
    """
    if isinstance(settings, RegexCheck):
        pattern = compile_pattern(settings.regex)
        return Check(
            lambda text, _: last_match(pattern, text), _same_text, "has nothing that the regular expression finds"
        )
    if isinstance(settings, LabelCheck):
        labels = settings.labels
        return Check(lambda text, _: read_label(text, labels), _same_label, "names none of the labels, or several")
    if isinstance(settings, JsonCheck):
        return _json_check(settings.json_fields)
    if isinstance(settings, FunctionCheck):
        return FunctionOfUsers(load_function(settings.function, settings.digest))
    if settings not in _BY_NAME:
        raise ConfigError(f"evaluation.answer_check: {settings!r} cannot be used here; give labels, as {{labels: […]}}")
    return _BY_NAME[settings]


def _same_exactly(reference: str, answer: str) -> Judgement:
    same = normalized(answer) == normalized(reference)
    return Judgement.of(same, certain=same and is_same_but_for_case(answer, reference))


def _same_text(reference: str, answer: str) -> Judgement:
    return Judgement.of(normalized(answer) == normalized(reference), certain=answer == reference)


def _same_quantity(reference: Quantity, answer: Quantity) -> Judgement:
    agreement = equality(reference.node, answer.node)
    # a judge may decide otherwise if a unit was converted or left out
    is_clear = reference.is_plain and answer.is_plain and units_of(reference.node) == units_of(answer.node)
    if agreement is Equality.NONE:
        return Judgement.of(False, certain=is_clear and _are_whole_numbers(reference, answer))
    return Judgement.of(True, certain=is_clear)


def _are_whole_numbers(*quantities: Quantity) -> bool:
    numbers = [each for quantity in quantities for each in nodes_of(quantity.node) if isinstance(each, Number)]
    return all(number.value.denominator == 1 for number in numbers)


def _same_formula(reference: Formula, answer: Formula) -> Judgement:
    agreement = same_mathematics(reference, answer)
    certain = agreement is Equality.FULL and reference.is_plain and answer.is_plain
    return Judgement.of(agreement is not Equality.NONE, certain=certain)


def _same_option(reference: Option, answer: Option) -> Judgement:
    return Judgement.of(answer.name == reference.name, certain=reference.is_plain and answer.is_plain)


def _same_label(reference: Label, answer: Label) -> Judgement:
    return Judgement.of(answer.name == reference.name, certain=reference.is_plain and answer.is_plain)


def _same_calls(reference: Calls, answer: Calls) -> Judgement:
    same, reason = compare_calls(reference, answer)
    # a judge may decide otherwise if texts differ in case or punctuation
    return Judgement.of(same, reason, certain=not same or reference == answer)


def _json_check(fields: tuple[str, ...]) -> Check[tuple[object, ...]]:
    def read(text: str, _: str) -> tuple[object, ...] | None:
        value = read_object(text)
        if not fields:
            return None if value is MISSING else (value,)
        values = tuple(field_of(value, field) for field in fields)
        return None if value is MISSING or all(each is MISSING for each in values) else values

    def compare(reference: tuple[object, ...], answer: tuple[object, ...]) -> Judgement:
        pairs = zip(fields or ("the value",), reference, answer, strict=True)
        differing = [name for name, expected, found in pairs if not same_object(expected, found)]
        reason = f"{', '.join(differing)} differs" if differing else ""
        return Judgement.of(not differing, reason, certain=reference == answer)

    return Check(read, compare, f"is no JSON with {', '.join(fields)}" if fields else "is not JSON")


_BY_NAME: dict[object, Check[Any]] = {
    "exact": Check(lambda text, _: text, _same_exactly, "is empty"),
    "numeric": Check(
        lambda text, _: read_quantity(text), _same_quantity, "holds no number", lambda reading: reading.is_only
    ),
    "math": Check(lambda text, _: read_mathematics(text), _same_formula, "is empty"),
    "option": Check(
        lambda text, question: read_option(text, options_of(question)), _same_option, "names no option, or several"
    ),
    "json": _json_check(()),
    "tool_call": Check(lambda text, _: read_calls(text), _same_calls, "is no call of a tool with name and arguments"),
}
