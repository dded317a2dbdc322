"""Compares the values of two formulas: exactly if they are rational, otherwise to 40 digits at several points.

Formulas with variables are compared at points with rational coordinates (polynomial identity testing; Schwartz 1980).
The probability that different formulas agree at all of them is negligible. Nothing is simplified, so the time is
limited.
"""

from fractions import Fraction

from sftkey_dist.evaluation.answers.mathematics.arithmetic import (
    EQUAL_DIGITS,
    POSITIVE_POINTS,
    Context,
    Evaluation,
    Float,
    NoValueError,
    Value,
    as_float,
    context_of,
)
from sftkey_dist.evaluation.answers.mathematics.formula import CONSTANTS, Node, Symbol, Unit, nodes_of
from sftkey_dist.evaluation.answers.mathematics.units import measure

_DIGITS = 60
_POINTS = 5


def same_value(one: Node, other: Node) -> bool:
    """Whether two formulas agree at every point where both are defined; False if there is no such point."""
    if one == other:
        return True
    agreed = False
    for point in range(_POINTS if _has_variables(one) or _has_variables(other) else 1):
        outcome = _agree_at(point, one, other)
        if outcome is False:
            return False
        agreed = agreed or outcome is True
    return agreed


def sign_of_proportion(one: Node, other: Node) -> int:
    """The sign of the constant factor between two formulas; 0 if they are not proportional."""
    signs, first = set(), None
    for point in range(_POINTS):
        try:
            ratio = _quotient(Evaluation(point, _DIGITS), one, other)
        except NoValueError:
            continue
        if ratio == 0:
            return 0
        first = ratio if first is None else first
        if not _is_close(context_of(_DIGITS), ratio, first):
            return 0
        signs.add(1 if context_of(_DIGITS).mpf(0) < _real(ratio) else -1)
    return signs.pop() if len(signs) == 1 else 0


def has_value(node: Node) -> bool:
    """Whether a formula can be evaluated."""
    for point in range(POSITIVE_POINTS):
        try:
            Evaluation(point, _DIGITS).of(node)
        except NoValueError:
            continue
        return True
    return False


def _has_variables(node: Node) -> bool:
    return any(
        (isinstance(each, Symbol) and each.name not in CONSTANTS)
        or (isinstance(each, Unit) and bool(measure(each.name).bases))
        for each in nodes_of(node)
    )


def _agree_at(point: int, one: Node, other: Node) -> bool | None:
    """Whether two formulas agree at a point; None if both are undefined or, at a point with mixed signs, not real."""
    differences = []
    for digits in (_DIGITS, 2 * _DIGITS):
        evaluation, context = Evaluation(point, digits), context_of(digits)
        values = [_value_or_none(evaluation, node) for node in (one, other)]
        if None in values:
            return None if values == [None, None] else False
        first, second = values
        if isinstance(first, Fraction) and isinstance(second, Fraction):
            return first == second
        if point >= POSITIVE_POINTS and not (_is_real(first) and _is_real(second)):
            return None
        if _is_close(context, first, second):
            return True
        differences.append(abs(context.convert(as_float(context, first)) - as_float(context, second)))
    # a difference that is only due to rounding vanishes with more digits
    return bool(differences[1] < differences[0] * context_of(_DIGITS).mpf(10) ** -EQUAL_DIGITS)


def _value_or_none(evaluation: "Evaluation", node: Node) -> Value | None:
    try:
        return evaluation.of(node)
    except NoValueError:
        return None


def _is_close(context: Context, one: Value, other: Value) -> bool:
    one, other = as_float(context, one), as_float(context, other)
    if one == other:
        return True
    largest = max(abs(one), abs(other))
    return bool(context.isfinite(largest) and abs(one - other) <= largest * context.mpf(10) ** -EQUAL_DIGITS)


def _is_real(value: Value) -> bool:
    return isinstance(value, Fraction) or not hasattr(value, "_mpc_")


def _real(value: Value) -> Float:
    return as_float(context_of(_DIGITS), value).real


def _quotient(evaluation: "Evaluation", one: Node, other: Node) -> Value:
    return evaluation.divided(evaluation.of(one), evaluation.of(other))
