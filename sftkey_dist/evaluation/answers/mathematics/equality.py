"""Decides whether two readings are equal: by their parts if they have parts, otherwise by their values."""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from functools import lru_cache

from sftkey_dist.evaluation.answers.mathematics.forms import TURNED, comparable, kind_of
from sftkey_dist.evaluation.answers.mathematics.formula import (
    Apply,
    Node,
    Number,
    Symbol,
    Unit,
    mapped,
    nodes_of,
    units_of,
)
from sftkey_dist.evaluation.answers.mathematics.units import AMBIGUOUS, ONE_LETTER, measure, unit_named
from sftkey_dist.evaluation.answers.mathematics.values import same_value, sign_of_proportion

_MAX_PARTS = 16
_UNORDERED = {"{,}", "or", "list", "cup"}


class Equality(Enum):
    """How far two readings agree."""

    NONE = 0
    LOOSE = 1
    """They agree except for what may be left out: a unit, a percent sign, the base of a number, the order of a list."""
    FULL = 2


@lru_cache(maxsize=4096)
def equality(one: Node, other: Node) -> Equality:
    """How far two readings agree; the order of the two does not matter."""
    if one == other:
        return Equality.FULL
    one, other = comparable(one, other)
    kinds = {kind_of(one), kind_of(other)}
    if kinds == {"value"}:
        return _equal_values(one, other)
    if len(kinds) > 1 or not (isinstance(one, Apply) and isinstance(other, Apply)):
        return Equality.NONE
    (kind,) = kinds
    if kind.startswith("clock"):
        return _equal_times(one, other)
    if kind == "relation":
        return _equal_relations(one, other)
    if len(one.parts) != len(other.parts) or len(one.parts) > _MAX_PARTS:
        return Equality.NONE
    in_order = _all_equal(one.parts, other.parts)
    if in_order is Equality.NONE and one.operation in _UNORDERED | {"and"}:
        return _equal_in_some_order(one, other)
    return in_order


def _all_equal(ones: Sequence[Node], others: Sequence[Node]) -> Equality:
    weakest = Equality.FULL
    for pair in zip(ones, others, strict=True):
        found = equality(*pair)
        if found is Equality.NONE:
            return found
        weakest = min(weakest, found, key=lambda each: each.value)
    return weakest


def _equal_in_some_order(one: Apply, other: Apply) -> Equality:
    left = list(other.parts)
    for part in one.parts:
        match = next((each for each in left if equality(part, each) is not Equality.NONE), None)
        if match is None:
            return Equality.NONE
        left.remove(match)
    is_set = one.operation == other.operation == "{,}"
    return Equality.FULL if is_set else Equality.LOOSE


def _equal_times(one: Apply, other: Apply) -> Equality:
    """Compare two times, where a time without am or pm may mean either, or two ratios.

    ``3:45`` may be a time or a ratio, and ``3:4`` is a ratio. Two of the first kind are compared as times.
    """
    first, second = _pieces(one), _pieces(other)
    kinds = {node.operation.partition(" ")[2] for node in (one, other)}  # am, pm, ratio, or "" for what may be any
    if first == second:
        return Equality.FULL if len(kinds) == 1 else Equality.LOOSE if "" in kinds else Equality.NONE
    if kinds <= {"", "ratio"}:
        is_ratio = "ratio" in kinds and len(first) == len(second) == 2 and 0 not in first + second
        return Equality.LOOSE if is_ratio and first[0] * second[1] == first[1] * second[0] else Equality.NONE
    return Equality.LOOSE if _in_24_hours(one) == _in_24_hours(other) and len(kinds) > 1 else Equality.NONE


def _pieces(clock: Apply) -> tuple[Fraction, ...]:
    pieces = tuple(part.value for part in clock.parts if isinstance(part, Number))
    return (*pieces, Fraction(0)) if len(pieces) == 1 else pieces


def _in_24_hours(clock: Apply) -> tuple[Fraction, ...]:
    hour, *rest = _pieces(clock)
    half = clock.operation.partition(" ")[2]
    return ((hour % 12 + (12 if half == "pm" else 0)) if half else hour, *rest)


def _equal_relations(one: Apply, other: Apply) -> Equality:
    """Compare equations and inequalities: two sides by proportion, more sides one by one."""
    if len(one.parts) != 2 or len(other.parts) != 2:
        same = one.operation == other.operation and len(one.parts) == len(other.parts)
        return _all_equal(one.parts, other.parts) if same else Equality.NONE
    sign, other_sign = one.operation.partition(" ")[2], other.operation.partition(" ")[2]
    if sign == other_sign and _all_equal(one.parts, other.parts) is not Equality.NONE:
        return Equality.FULL
    if not all(kind_of(part) == "value" for part in one.parts + other.parts) or "in" in (sign, other_sign):
        return Equality.NONE
    proportion = sign_of_proportion(Apply("sub", one.parts), Apply("sub", other.parts))
    if sign in ("=", "!=") and sign == other_sign:
        return Equality.FULL if proportion else Equality.NONE
    wanted = {1: sign, -1: TURNED.get(sign)}.get(proportion)
    return Equality.FULL if wanted == other_sign else Equality.NONE


def _equal_values(one: Node, other: Node) -> Equality:
    if same_value(one, other):
        return Equality.FULL
    units, other_units = units_of(one), units_of(other)
    if units and other_units:
        return Equality.LOOSE if any(same_value(*pair) for pair in _with_same_names(one, other)) else Equality.NONE
    if (units or other_units) and same_value(_letters_as_units(one), _letters_as_units(other)):
        return Equality.LOOSE
    with_units, without = (one, other) if units else (other, one)
    if units != other_units and not _adds_up(with_units):
        return Equality.LOOSE if same_value(_stripped(with_units), without) else Equality.NONE
    return _equal_without_base(one, other)


def _adds_up(node: Node) -> bool:
    """Whether the value depends on the units, as of 2 hours 30 minutes."""
    return any(isinstance(each, Apply) and each.operation == "and" for each in nodes_of(node))


def _stripped(node: Node) -> Node:
    return _without_units(node, units_of(node))


def _with_same_names(one: Node, other: Node) -> list[tuple[Node, Node]]:
    """Pairs of the readings with one name for the same unit: red apples and apples, £ and pounds, $5 and a $5 fee."""
    nouns = {name for name in units_of(one) if _is_noun(name)} - units_of(other)
    others = {name for name in units_of(other) if _is_noun(name)} - units_of(one)
    pairs = [(_renamed(one, AMBIGUOUS), other), (one, _renamed(other, AMBIGUOUS))]
    pairs.append((_letters_as_units(one), _letters_as_units(other)))
    if bool(nouns) != bool(others) and units_of(one) - nouns == units_of(other) - others:
        pairs.append((_without_units(one, nouns), _without_units(other, others)))
    if len(nouns) == len(others) == 1:
        (noun,), (wanted,) = nouns, others
        if set(noun.split()) <= set(wanted.split()) or set(wanted.split()) <= set(noun.split()):
            pairs.append((_renamed(one, {noun: wanted}), other))
    return pairs


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    return mapped(node, lambda each: Unit(names[each.name]) if isinstance(each, Unit) and each.name in names else each)


def _letters_as_units(node: Node) -> Node:
    """The reading with letters that may be units as units: h is a unit if the other reading has hours."""
    return mapped(node, _as_unit)


def _as_unit(node: Node) -> Node:
    name = unit_named(node.name, one_letter=True) if isinstance(node, Symbol) and node.name in ONE_LETTER else None
    return node if name is None else Unit(name)


def _without_units(node: Node, names: Collection[str]) -> Node:
    return mapped(node, lambda each: Number(Fraction(1)) if isinstance(each, Unit) and each.name in names else each)


def _is_noun(name: str) -> bool:
    return measure(name).bases == ((name, 1),) and name.islower() and len(name) > 2


def _equal_without_base(one: Node, other: Node) -> Equality:
    """Compare ``123_5`` with 123, which leaves out the base."""
    for based, plain in ((one, other), (other, one)):
        is_based = isinstance(based, Apply) and based.operation == "base"
        if is_based and isinstance(based, Apply) and isinstance(plain, Number) and same_value(based.parts[0], plain):
            return Equality.LOOSE
    return Equality.NONE
