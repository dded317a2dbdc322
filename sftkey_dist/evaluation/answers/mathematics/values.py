"""Whether two formulas have one value: exactly where they are rational, else to 40 digits at several points.

A formula with symbols is compared at points with rational coordinates (polynomial identity testing; Schwartz 1980):
two formulas that agree at all of them are equal but for a chance that can be neglected. Nothing is simplified, so
nothing takes for ever: what would grow too large, or is a function of something so large, has no value.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

from sftkey_dist.evaluation.answers.mathematics.formula import CONSTANTS, Apply, Node, Number, Symbol, Unit, nodes_of
from sftkey_dist.evaluation.answers.mathematics.units import measure
from sftkey_dist.evaluation.answers.vocabulary import words

_DIGITS = 60
_EQUAL_DIGITS = 40
_MOST_BITS = 40_000
"""Of an exact number; a larger one is computed in floating point."""
_LARGEST_EXPONENT_BITS = 40
_LARGEST_EXACT_FACTORIAL, _LARGEST_FACTORIAL = 3000, 10**9
_LARGEST_ARGUMENT = 10**30
"""Of a function such as the sine, whose digits before the point have to be known."""
_POSITIVE_POINTS, _POINTS = 3, 5
_own = threading.local()

Value = Any
"""A Fraction where it is exact, else an mpmath number, real or complex."""


class NoValueError(Exception):
    """A formula is undefined, or its value too large to compute."""


def same_value(one: Node, other: Node) -> bool:
    """Whether two formulas agree wherever both are defined; those that are nowhere defined agree nowhere."""
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
    """The sign of the constant that one formula is the other times; 0 where there is none."""
    signs, first = set(), None
    for point in range(_POINTS):
        try:
            ratio = _quotient(_Evaluation(point, _DIGITS), one, other)
        except NoValueError:
            continue
        if ratio == 0:
            return 0
        first = ratio if first is None else first
        if not _is_close(_context(_DIGITS), ratio, first):
            return 0
        signs.add(1 if _context(_DIGITS).mpf(0) < _real(ratio) else -1)
    return signs.pop() if len(signs) == 1 else 0


def has_value(node: Node) -> bool:
    """Whether a formula can be evaluated."""
    for point in range(_POSITIVE_POINTS):
        try:
            _Evaluation(point, _DIGITS).of(node)
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
    """None where nothing can be told: both are undefined, or not real where signs are mixed."""
    differences = []
    for digits in (_DIGITS, 2 * _DIGITS):
        evaluation, context = _Evaluation(point, digits), _context(digits)
        values = [_value_or_none(evaluation, node) for node in (one, other)]
        if None in values:
            return None if values == [None, None] else False
        first, second = values
        if isinstance(first, Fraction) and isinstance(second, Fraction):
            return first == second
        if point >= _POSITIVE_POINTS and not (_is_real(first) and _is_real(second)):
            return None
        if _is_close(context, first, second):
            return True
        differences.append(abs(context.convert(_float(context, first)) - _float(context, second)))
    # a difference that is rounding alone vanishes as digits are added
    return bool(differences[1] < differences[0] * _context(_DIGITS).mpf(10) ** -_EQUAL_DIGITS)


def _value_or_none(evaluation: "_Evaluation", node: Node) -> Value | None:
    try:
        return evaluation.of(node)
    except NoValueError:
        return None


def _is_close(context: Any, one: Value, other: Value) -> bool:
    one, other = _float(context, one), _float(context, other)
    if one == other:
        return True
    largest = max(abs(one), abs(other))
    return bool(context.isfinite(largest) and abs(one - other) <= largest * context.mpf(10) ** -_EQUAL_DIGITS)


def _is_real(value: Value) -> bool:
    return isinstance(value, Fraction) or not hasattr(value, "_mpc_")


def _real(value: Value) -> Any:
    return _float(_context(_DIGITS), value).real


def _quotient(evaluation: "_Evaluation", one: Node, other: Node) -> Value:
    return evaluation.divided(evaluation.of(one), evaluation.of(other))


def _context(digits: int) -> Any:
    """A context of this thread's own, as a context's precision is not safe among threads."""
    contexts: dict[int, Any] = _own.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        contexts[digits] = mpmath.MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


def _float(context: Any, value: Value) -> Any:
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    return value


class _Evaluation:
    """Of formulas at one point, with a number of digits."""

    def __init__(self, point: int, digits: int) -> None:
        self._point = point
        self._context = _context(digits)

    def of(self, node: Node) -> Value:
        """A formula's value.

        Raises:
            NoValueError: it has none here.
        """
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Symbol):
            return self._symbol(node.name)
        if isinstance(node, Unit):
            return self._unit(node.name)
        try:
            return self._applied(node.operation, node)
        except (ArithmeticError, ValueError, TypeError, mpmath.libmp.NoConvergence) as error:
            raise NoValueError from error

    def divided(self, one: Value, other: Value) -> Value:
        """A quotient.

        Raises:
            NoValueError: the divisor is zero.
        """
        if other == 0:
            raise NoValueError
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one / other
        return _float(self._context, one) / _float(self._context, other)

    def _symbol(self, name: str) -> Value:
        if name == "pi":
            return +self._context.pi
        if name == "e":
            return +self._context.e
        if name == "i":
            return self._context.mpc(0, 1)
        if name == "infty":
            return self._context.inf
        return self._coordinate(name)

    def _unit(self, name: str) -> Value:
        known = measure(name)
        value = known.factor
        for base, power in known.bases:
            value *= self._coordinate(base) ** power
        return value

    def _coordinate(self, name: str) -> Fraction:
        """Of a variable at this point: the same wherever and whenever it is asked for."""
        digest = hashlib.sha256(f"{name}\n{self._point}".encode()).digest()
        value = Fraction(int.from_bytes(digest[:4], "big") % 2000 + 200, int.from_bytes(digest[4:8], "big") % 500 + 100)
        return -value if self._point >= _POSITIVE_POINTS and digest[8] % 2 else value

    def _applied(self, operation: str, node: Apply) -> Value:
        if operation in _OPAQUE or operation.startswith("apply "):
            return self._opaque(operation, node)
        values = [self.of(part) for part in node.parts]
        own = _OPERATIONS.get(operation)
        if own is not None:
            return self._bounded(own(self, *values))
        return self._function(operation, values)

    def _function(self, name: str, values: list[Value]) -> Value:
        function = getattr(self._context, _MPMATH_NAMES.get(name, name), None) if name in _MPMATH else None
        if function is None:
            raise NoValueError
        return function(*(_float(self._context, _no_larger(value, _LARGEST_ARGUMENT)) for value in values))

    def _opaque(self, operation: str, node: Apply) -> Value:
        """A function of which nothing is known: equal where its name and arguments are."""
        if operation == "derivative":
            return self._coordinate(repr(node))
        values = [self.of(part) for part in node.parts]
        named = [str(v) if isinstance(v, Fraction) else self._context.nstr(v, _EQUAL_DIGITS) for v in values]
        return self._coordinate(f"{operation}({', '.join(named)})")

    def _bounded(self, value: Value) -> Value:
        if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > _MOST_BITS:
            return _float(self._context, value)
        return value

    def power(self, base: Value, exponent: Value) -> Value:
        """Exact for a rational base and a whole exponent, as long as the number stays of a size."""
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            if isinstance(base, Fraction):
                bits = base.numerator.bit_length() + base.denominator.bit_length()
                if bits * abs(exponent.numerator) <= _MOST_BITS:
                    if base == 0 and exponent < 0:
                        raise NoValueError
                    return Fraction(base) ** exponent.numerator
            exponent_float: Value = exponent.numerator
        else:
            exact = _exact_root(base, exponent)
            if exact is not None:
                return exact
            exponent_float = _float(self._context, exponent)
        if abs(exponent_float) >= 2**_LARGEST_EXPONENT_BITS:
            raise NoValueError
        return self._context.power(_float(self._context, base), exponent_float)

    def factorial(self, value: Value) -> Value:
        """Exact for a whole number of a size."""
        _no_larger(value, _LARGEST_FACTORIAL)
        if not isinstance(value, Fraction) or value.denominator != 1:
            return self._context.gamma(_float(self._context, value) + 1)
        if value < 0:
            raise NoValueError
        if value <= _LARGEST_EXACT_FACTORIAL:
            return Fraction(math.factorial(value.numerator))
        return self._context.factorial(value.numerator)

    def binomial(self, total: Value, chosen: Value) -> Value:
        """By the gamma function, for what is no whole number."""
        floats = [_float(self._context, _no_larger(value, _LARGEST_FACTORIAL)) for value in (total, chosen)]
        return self._context.binomial(*floats)

    def added(self, one: Value, other: Value) -> Value:
        """A sum."""
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one + other
        return _float(self._context, one) + _float(self._context, other)

    def multiplied(self, one: Value, other: Value) -> Value:
        """A product."""
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one * other
        return _float(self._context, one) * _float(self._context, other)

    def based(self, digits: Value, base: Value) -> Value:
        """A number written in a base."""
        if digits.denominator != 1:
            raise NoValueError
        return Fraction(int(str(digits.numerator), int(base)))

    def logarithm(self, value: Value, base: Value) -> Value:
        """To a base; exact where it is a whole number."""
        if isinstance(value, Fraction) and isinstance(base, Fraction) and base > 1 and value > 0:
            near = round(math.log(value, base)) if value < 10**300 else 0
            if self.power(base, Fraction(near)) == value:
                return Fraction(near)
        return self._context.log(_float(self._context, value), _float(self._context, base))


def _exact_root(base: Value, exponent: Value) -> Fraction | None:
    """Of a perfect square, so that √4 is 2."""
    if not (isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 2 and base >= 0):
        return None
    roots = math.isqrt(base.numerator), math.isqrt(base.denominator)
    if (roots[0] ** 2, roots[1] ** 2) != (base.numerator, base.denominator) or abs(exponent.numerator) > 64:
        return None
    return Fraction(*roots) ** exponent.numerator if base else Fraction(0)


def _no_larger(value: Value, bound: int) -> Value:
    """The value, if it is at most so far from zero; NaN is not."""
    if not abs(value) <= bound:
        raise NoValueError
    return value


def _of_a_size(value: Value) -> Value:
    """Exact values are; others may have more digits than fit memory."""
    return value if isinstance(value, Fraction) else _no_larger(value, _LARGEST_ARGUMENT)


def _whole_number(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise NoValueError
    return value.numerator


def _binomial(evaluation: _Evaluation, total: Value, chosen: Value) -> Value:
    if all(isinstance(each, Fraction) and each.denominator == 1 and 0 <= each <= 5000 for each in (total, chosen)):
        return Fraction(math.comb(int(total), int(chosen)))
    return evaluation.binomial(total, chosen)


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": _Evaluation.added,
    "and": lambda evaluation, *values: _sum(evaluation, values),
    "sub": lambda evaluation, one, other: evaluation.added(one, -other),
    "range": lambda evaluation, one, other: evaluation.added(one, -other),
    "neg": lambda evaluation, value: -value,
    "mul": _Evaluation.multiplied,
    "div": _Evaluation.divided,
    "frac": _Evaluation.divided,
    "pow": _Evaluation.power,
    "factorial": _Evaluation.factorial,
    "base": _Evaluation.based,
    "abs": lambda evaluation, value: abs(value),
    "floor": lambda evaluation, value: Fraction(math.floor(_of_a_size(value))),
    "ceil": lambda evaluation, value: Fraction(math.ceil(_of_a_size(value))),
    "max": lambda evaluation, *values: max(values),
    "min": lambda evaluation, *values: min(values),
    "gcd": lambda evaluation, *values: Fraction(math.gcd(*map(_whole_number, values))),
    "lcm": lambda evaluation, *values: Fraction(math.lcm(*map(_whole_number, values))),
    "binom": _binomial,
    "log_": _Evaluation.logarithm,
    "lg": lambda evaluation, value: evaluation.logarithm(value, Fraction(10)),
}
_MPMATH_NAMES = {
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "sgn": "sign",
}
_MPMATH = words("sin cos tan cot sec csc asin acos atan sinh cosh tanh coth asinh acosh atanh ln log arg sign") | set(
    _MPMATH_NAMES
)
_OPAQUE = frozenset({"derivative"})


def _sum(evaluation: _Evaluation, values: tuple[Value, ...]) -> Value:
    total: Value = Fraction(0)
    for value in values:
        total = evaluation.added(total, value)
    return total
