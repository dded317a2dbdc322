"""The value of a formula at a point: exact where it is rational, else a floating-point number of many digits.

A number that would grow too large, or a function of such a number, has no value, so that the time is limited.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

import mpmath

from sftkey_dist.evaluation.answers.mathematics.formula import Apply, Node, Number, Symbol, Unit
from sftkey_dist.evaluation.answers.mathematics.units import measure
from sftkey_dist.evaluation.answers.vocabulary import words

EQUAL_DIGITS = 40
"""Number of digits in which two values must agree to be equal."""
POSITIVE_POINTS = 3
"""Number of points, the first ones, whose coordinates are all positive."""
_MAX_BITS = 40_000
"""Size of the largest exact number; a larger one is computed in floating point."""
_LARGEST_EXPONENT_BITS = 40
_LARGEST_EXACT_FACTORIAL, _LARGEST_FACTORIAL = 3000, 10**9
_LARGEST_ARGUMENT = 10**30
"""Of a function such as the sine, which needs all digits before the decimal point."""
_own = threading.local()

Float: TypeAlias = mpmath.ctx_mp_python.mpnumeric
"""A floating-point number, real or complex, of any number of digits."""
Context: TypeAlias = mpmath.MPContext
"""Computes floating-point numbers with a given number of digits."""
Value: TypeAlias = Fraction | Float
"""A Fraction if it is exact."""


class NoValueError(Exception):
    """A formula is undefined, or its value too large to compute."""


def context_of(digits: int) -> Context:
    """The context of this thread for a number of digits; a context must not be shared by threads."""
    contexts: dict[int, Context] = _own.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        contexts[digits] = mpmath.MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


def as_float(context: Context, value: Value) -> Float:
    """A value in floating point."""
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    return value


class Evaluation:
    """Evaluates formulas at one point, with a number of digits."""

    def __init__(self, point: int, digits: int) -> None:
        self._point = point
        self._context = context_of(digits)

    def of(self, node: Node) -> Value:
        """The value of a formula.

        Raises:
            NoValueError: It has no value at this point.
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
            NoValueError: The divisor is zero.
        """
        if other == 0:
            raise NoValueError
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one / other
        return as_float(self._context, one) / as_float(self._context, other)

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
        """The value of a variable at this point, which depends on nothing but the name and the point."""
        digest = hashlib.sha256(f"{name}\n{self._point}".encode()).digest()
        value = Fraction(int.from_bytes(digest[:4], "big") % 2000 + 200, int.from_bytes(digest[4:8], "big") % 500 + 100)
        return -value if self._point >= POSITIVE_POINTS and digest[8] % 2 else value

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
        return function(*(as_float(self._context, _no_larger(value, _LARGEST_ARGUMENT)) for value in values))

    def _opaque(self, operation: str, node: Apply) -> Value:
        """The value of an unknown function, which is equal if its name and arguments are."""
        if operation == "derivative":
            return self._coordinate(repr(node))
        values = [self.of(part) for part in node.parts]
        named = [str(v) if isinstance(v, Fraction) else self._context.nstr(v, EQUAL_DIGITS) for v in values]
        return self._coordinate(f"{operation}({', '.join(named)})")

    def _bounded(self, value: Value) -> Value:
        if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > _MAX_BITS:
            return as_float(self._context, value)
        return value

    def power(self, base: Value, exponent: Value) -> Value:
        """A power; exact for a rational base and an integer exponent, unless the number is too large."""
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            if isinstance(base, Fraction):
                bits = base.numerator.bit_length() + base.denominator.bit_length()
                if bits * abs(exponent.numerator) <= _MAX_BITS:
                    if base == 0 and exponent < 0:
                        raise NoValueError
                    return Fraction(base) ** exponent.numerator
            exponent_float: Value = exponent.numerator
        else:
            exact = _exact_root(base, exponent)
            if exact is not None:
                return exact
            exponent_float = as_float(self._context, exponent)
        if abs(exponent_float) >= 2**_LARGEST_EXPONENT_BITS:
            raise NoValueError
        return self._context.power(as_float(self._context, base), exponent_float)

    def root(self, radicand: Value, degree: Value) -> Value:
        """A root of an odd degree, which is real for a negative number."""
        minus_one = Fraction(-1)
        if not hasattr(radicand, "_mpc_") and radicand < 0:
            return self.multiplied(minus_one, self.root(self.multiplied(minus_one, radicand), degree))
        return self.power(radicand, self.divided(Fraction(1), degree))

    def factorial(self, value: Value) -> Value:
        """A factorial; exact for an integer that is not too large."""
        _no_larger(value, _LARGEST_FACTORIAL)
        if not isinstance(value, Fraction) or value.denominator != 1:
            return self._context.gamma(as_float(self._context, value) + 1)
        if value < 0:
            raise NoValueError
        if value <= _LARGEST_EXACT_FACTORIAL:
            return Fraction(math.factorial(value.numerator))
        return self._context.factorial(value.numerator)

    def binomial(self, total: Value, chosen: Value) -> Value:
        """A binomial coefficient by the gamma function, for arguments that are not integers."""
        floats = [as_float(self._context, _no_larger(value, _LARGEST_FACTORIAL)) for value in (total, chosen)]
        return self._context.binomial(*floats)

    def added(self, one: Value, other: Value) -> Value:
        """A sum."""
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one + other
        return as_float(self._context, one) + as_float(self._context, other)

    def multiplied(self, one: Value, other: Value) -> Value:
        """A product."""
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one * other
        return as_float(self._context, one) * as_float(self._context, other)

    def based(self, digits: Value, base: Value) -> Value:
        """A number written in a base."""
        if digits.denominator != 1:
            raise NoValueError
        return Fraction(int(str(digits.numerator), int(base)))

    def logarithm(self, value: Value, base: Value) -> Value:
        """A logarithm to a base; exact if it is an integer."""
        if isinstance(value, Fraction) and isinstance(base, Fraction) and base > 1 and value > 0:
            near = round(math.log(value, base)) if value < 10**300 else 0
            if self.power(base, Fraction(near)) == value:
                return Fraction(near)
        return self._context.log(as_float(self._context, value), as_float(self._context, base))


def _exact_root(base: Value, exponent: Value) -> Fraction | None:
    """The root of a perfect square, so that √4 is exactly 2; None for other numbers."""
    if not (isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 2 and base >= 0):
        return None
    roots = math.isqrt(base.numerator), math.isqrt(base.denominator)
    if (roots[0] ** 2, roots[1] ** 2) != (base.numerator, base.denominator) or abs(exponent.numerator) > 64:
        return None
    return Fraction(*roots) ** exponent.numerator if base else Fraction(0)


def _no_larger(value: Value, bound: int) -> Value:
    """The value, if its magnitude is at most ``bound``, which is not true of NaN."""
    if not abs(value) <= bound:
        raise NoValueError
    return value


def _of_a_size(value: Value) -> Value:
    """The value, if it can be rounded: a large one in floating point may have more digits than fit in memory."""
    return value if isinstance(value, Fraction) else _no_larger(value, _LARGEST_ARGUMENT)


def _whole_number(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise NoValueError
    return value.numerator


def _binomial(evaluation: Evaluation, total: Value, chosen: Value) -> Value:
    if all(isinstance(each, Fraction) and each.denominator == 1 and 0 <= each <= 5000 for each in (total, chosen)):
        return Fraction(math.comb(int(total), int(chosen)))
    return evaluation.binomial(total, chosen)


def _sum(evaluation: Evaluation, values: tuple[Value, ...]) -> Value:
    total: Value = Fraction(0)
    for value in values:
        total = evaluation.added(total, value)
    return total


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": Evaluation.added,
    "and": lambda evaluation, *values: _sum(evaluation, values),
    "sub": lambda evaluation, one, other: evaluation.added(one, -other),
    "range": lambda evaluation, one, other: evaluation.added(one, -other),
    "neg": lambda evaluation, value: -value,
    "mul": Evaluation.multiplied,
    "div": Evaluation.divided,
    "frac": Evaluation.divided,
    "pow": Evaluation.power,
    "root": Evaluation.root,
    "factorial": Evaluation.factorial,
    "base": Evaluation.based,
    "abs": lambda evaluation, value: abs(value),
    "floor": lambda evaluation, value: Fraction(math.floor(_of_a_size(value))),
    "ceil": lambda evaluation, value: Fraction(math.ceil(_of_a_size(value))),
    "max": lambda evaluation, *values: max(values),
    "min": lambda evaluation, *values: min(values),
    "gcd": lambda evaluation, *values: Fraction(math.gcd(*map(_whole_number, values))),
    "lcm": lambda evaluation, *values: Fraction(math.lcm(*map(_whole_number, values))),
    "binom": _binomial,
    "log_": Evaluation.logarithm,
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
