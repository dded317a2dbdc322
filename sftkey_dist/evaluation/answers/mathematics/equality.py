"""Whether two readings are equal: part by part where they have parts, by value where they have one."""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from fractions import Fraction
from functools import lru_cache

from sftkey_dist.evaluation.answers.mathematics.formula import (
    CONSTANTS,
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
from sftkey_dist.evaluation.answers.vocabulary import words

_MOST_PARTS = 16
_UNORDERED = {"{,}", "or", "list", "cup"}
_BY_PARTS = words("cup cap matrix row date range remainder modulo")
_OF_VALUES = {"{,}", "or", "list"}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


class Equality(Enum):
    """How far two readings agree."""

    NONE = 0
    LOOSE = 1
    """But for what may be left out: a unit, a percent sign, the base of a number, the order of a list."""
    FULL = 2


@lru_cache(maxsize=4096)
def equality(one: Node, other: Node) -> Equality:
    """How far two readings agree; the order of the two does not matter."""
    if one == other:
        return Equality.FULL
    one, other = _comparable(one, other)
    kinds = {_kind(one), _kind(other)}
    if kinds == {"value"}:
        return _equal_values(one, other)
    if len(kinds) > 1 or not (isinstance(one, Apply) and isinstance(other, Apply)):
        return Equality.NONE
    (kind,) = kinds
    if kind.startswith("clock"):
        return _equal_times(one, other)
    if kind == "relation":
        return _equal_relations(one, other)
    if len(one.parts) != len(other.parts) or len(one.parts) > _MOST_PARTS:
        return Equality.NONE
    in_order = _all_equal(one.parts, other.parts)
    if in_order is Equality.NONE and one.operation in _UNORDERED | {"and"}:
        return _equal_in_some_order(one, other)
    return in_order


def _comparable(one: Node, other: Node) -> tuple[Node, Node]:
    """The two as far as they can be brought to one form: ± told apart, `x = 5` as 5, `x > 3` as (3, ∞)."""
    if "°" in units_of(one) | units_of(other):
        one, other = _in_degrees(one), _in_degrees(other)
    one, other = _with_shared_unit(_spread(one)), _with_shared_unit(_spread(other))
    one, other = _like(one, other), _like(other, one)
    for turned in (False, True):
        first, second = (other, one) if turned else (one, other)
        if _kind(first) == "relation" and _kind(second) != "relation":
            bare = _without_subject(first)
            first = bare if bare is not None else first
        one, other = (second, first) if turned else (first, second)
    if _kind(one) == "relation" and _kind(other) == "relation" and _subject(one) == _subject(other):
        first_interval, second_interval = _as_interval(one), _as_interval(other)
        if first_interval is not None and second_interval is not None:
            return first_interval, second_interval
    return _spread(one), _spread(other)


def _in_degrees(node: Node) -> Node:
    """With angles in radians as degrees, 180/π of them."""
    degrees = Apply("mul", (Apply("div", (Number(Fraction(180)), Symbol("pi"))), Unit("°")))
    return mapped(node, lambda each: degrees if each == Unit("rad") else each)


def _like(node: Node, other: Node) -> Node:
    """A reading in the form of the other, where it may be written in two."""
    if not isinstance(node, Apply) or not isinstance(other, Apply):
        return node
    if other.operation == "matrix":
        return _as_matrix(node)
    if other.operation == "(,)":
        return _as_tuple(node)
    if other.operation == "cup" and node.operation == "or":
        intervals = [_as_interval(part) for part in node.parts]
        return node if None in intervals else Apply("cup", tuple(each for each in intervals if each is not None))
    return _as_ratio(node, other)


def _as_matrix(node: Apply) -> Node:
    """``[[1, 2], [3, 4]]``, and a number times a matrix."""
    if node.operation == "[,]" and all(isinstance(part, Apply) and part.operation == "[,]" for part in node.parts):
        return Apply("matrix", tuple(Apply("row", part.parts) for part in node.parts if isinstance(part, Apply)))
    scale, scaled = node.parts if node.operation == "mul" else (node, node)
    if scaled is not node and isinstance(scaled, Apply) and scaled.operation == "matrix":
        rows = (row.parts for row in scaled.parts if isinstance(row, Apply))
        return Apply("matrix", tuple(Apply("row", tuple(Apply("mul", (scale, each)) for each in row)) for row in rows))
    return node


def _as_tuple(node: Apply) -> Node:
    """``x = 1, y = 2``, of variables in alphabetical order."""
    subjects = [_named_subject(part) for part in node.parts] if node.operation == "list" else []
    if not subjects or None in subjects or subjects != sorted(set(map(str, subjects))):
        return node
    return Apply("(,)", tuple(part.parts[1] for part in node.parts if isinstance(part, Apply)))


def _named_subject(node: Node) -> str | None:
    is_value = isinstance(node, Apply) and node.operation == "relation =" and isinstance(node.parts[0], Symbol)
    return node.parts[0].name if is_value and isinstance(node, Apply) and isinstance(node.parts[0], Symbol) else None


def _as_ratio(node: Node, other: Node) -> Node:
    """``3 to 4`` beside ``3:4`` is no range."""
    is_ratio = isinstance(node, Apply) and node.operation == "range" and _kind(other) == "clock"
    if is_ratio and isinstance(node, Apply) and all(isinstance(part, Number) for part in node.parts):
        return Apply("clock", node.parts)
    return node


def _kind(node: Node) -> str:
    """What two readings must have in common to be compared by parts."""
    if not isinstance(node, Apply):
        return "value"
    operation = node.operation
    if operation in _OF_VALUES:
        return "values"
    if operation.startswith("relation "):
        return "relation"
    if operation == "and":
        return "value" if _add_up(node.parts) else "and"
    if "," in operation or operation in _BY_PARTS or operation.startswith("bound"):
        return operation
    return "clock" if operation.startswith("clock") else "value"


def _add_up(parts: Sequence[Node]) -> bool:
    """Whether quantities are of one dimension, as hours and minutes are."""
    return len({_dimension(part) for part in parts}) == 1


def _dimension(node: Node) -> tuple[tuple[str, int], ...] | None:
    return next((measure(each.name).bases for each in nodes_of(node) if isinstance(each, Unit)), None)


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
    """Two clocks, where one that does not name the half of the day may mean either; or two ratios."""
    first, second = _pieces(one), _pieces(other)
    halves = {node.operation.partition(" ")[2] for node in (one, other)}
    if first == second:
        return Equality.FULL if len(halves) == 1 else Equality.LOOSE if "" in halves else Equality.NONE
    if halves == {""}:
        is_ratio = len(first) == len(second) == 2 and 0 not in first + second
        return Equality.LOOSE if is_ratio and first[0] * second[1] == first[1] * second[0] else Equality.NONE
    return Equality.LOOSE if _in_24_hours(one) == _in_24_hours(other) and len(halves) > 1 else Equality.NONE


def _pieces(clock: Apply) -> tuple[Fraction, ...]:
    pieces = tuple(part.value for part in clock.parts if isinstance(part, Number))
    return (*pieces, Fraction(0)) if len(pieces) == 1 else pieces


def _in_24_hours(clock: Apply) -> tuple[Fraction, ...]:
    hour, *rest = _pieces(clock)
    half = clock.operation.partition(" ")[2]
    return ((hour % 12 + (12 if half == "pm" else 0)) if half else hour, *rest)


def _equal_relations(one: Apply, other: Apply) -> Equality:
    """Equations and inequalities: of two sides in proportion, of more by parts."""
    if len(one.parts) != 2 or len(other.parts) != 2:
        same = one.operation == other.operation and len(one.parts) == len(other.parts)
        return _all_equal(one.parts, other.parts) if same else Equality.NONE
    sign, other_sign = one.operation.partition(" ")[2], other.operation.partition(" ")[2]
    if sign == other_sign and _all_equal(one.parts, other.parts) is not Equality.NONE:
        return Equality.FULL
    if not all(_kind(part) == "value" for part in one.parts + other.parts) or "in" in (sign, other_sign):
        return Equality.NONE
    proportion = sign_of_proportion(Apply("sub", one.parts), Apply("sub", other.parts))
    if sign in ("=", "!=") and sign == other_sign:
        return Equality.FULL if proportion else Equality.NONE
    wanted = {1: sign, -1: _TURNED.get(sign)}.get(proportion)
    return Equality.FULL if wanted == other_sign else Equality.NONE


def _without_subject(relation: Node) -> Node | None:
    """What a relation says of a single symbol or function: of `x = 5` and `x \\in [0, 1]` the right side."""
    if not isinstance(relation, Apply):
        return None
    if set(relation.operation.split()[1:]) <= {"=", "~"} and (stated := _stated_value(relation)) is not None:
        return stated
    if len(relation.parts) != 2:
        return _as_interval(relation)
    left, right = relation.parts
    if relation.operation in ("relation =", "relation ~") and not any(_has_symbol(part) for part in relation.parts):
        return right  # 3 + 5 = 8
    if relation.operation == "relation =" and not _is_subject(left) and _is_identity(left, right):
        return right
    if relation.operation in ("relation =", "relation in", "relation ~") and _is_subject(left):
        return right
    if relation.operation in ("relation =", "relation ~") and isinstance(right, Symbol) and not _has_symbol(left):
        return left
    return _as_interval(relation)


def _has_symbol(node: Node) -> bool:
    return any(
        (isinstance(each, Symbol) and each.name not in CONSTANTS) or isinstance(each, Unit) for each in nodes_of(node)
    )


def _stated_value(relation: Apply) -> Node | None:
    """Of `a + b = 5`, `x = 2 + 3 = 5` and `2/3 ≈ 0.667` the last value that is exact."""
    signs = relation.operation.split()[1:]
    exact = (
        relation.parts[: signs.index("~") + 1]
        if "~" in signs and not _is_subject(relation.parts[0])
        else relation.parts
    )
    says_more = any(_has_symbol(part) and any(isinstance(each, Number) for each in nodes_of(part)) for part in exact)
    return None if says_more or _has_symbol(exact[-1]) else exact[-1]


def _is_identity(left: Node, right: Node) -> bool:
    return _kind(left) == _kind(right) == "value" and same_value(left, right)


def _is_subject(node: Node) -> bool:
    if isinstance(node, Symbol):
        return node.name not in CONSTANTS
    if isinstance(node, Unit):
        return True
    return node.operation == "derivative" or node.operation.startswith("apply ") if isinstance(node, Apply) else False


def _subject(relation: Node) -> Node | None:
    parts = relation.parts if isinstance(relation, Apply) else ()
    return next((part for part in parts if _is_subject(part)), None)


def _as_interval(relation: Node) -> Node | None:
    """`x > 3`, `3 < x \\le 5` as intervals of the symbol."""
    if not isinstance(relation, Apply):
        return None
    signs, parts = relation.operation.split()[1:], relation.parts
    if signs == ["in"] and _is_subject(parts[0]):
        return parts[1]
    if not set(signs) <= _TURNED.keys():
        return None
    infinity = Symbol("infty")
    if len(parts) == 2 and _is_subject(parts[1]):
        signs, parts = [_TURNED[signs[0]]], (parts[1], parts[0])
    if len(parts) == 2 and _is_subject(parts[0]):
        if signs[0].startswith(">"):
            return Apply(("[" if "=" in signs[0] else "(") + ",)", (parts[1], infinity))
        return Apply("(," + ("]" if "=" in signs[0] else ")"), (Apply("neg", (infinity,)), parts[1]))
    if len(parts) == 3 and _is_subject(parts[1]) and signs[0][0] == signs[1][0]:
        low, high = (parts[0], parts[2]) if signs[0][0] == "<" else (parts[2], parts[0])
        low_sign, high_sign = signs if signs[0][0] == "<" else signs[::-1]
        return Apply(("[" if "=" in low_sign else "(") + "," + ("]" if "=" in high_sign else ")"), (low, high))
    return None


def _spread(node: Node) -> Node:
    """``a ± b`` as its two values."""
    if not any(isinstance(each, Apply) and each.operation == "pm" for each in nodes_of(node)):
        return node
    signs: tuple[str, ...] = ("add", "sub")
    return Apply("or", tuple(mapped(node, lambda each, sign=sign: _signed(each, sign)) for sign in signs))  # type: ignore[misc]


def _signed(node: Node, sign: str) -> Node:
    return Apply(sign, node.parts) if isinstance(node, Apply) and node.operation == "pm" else node


def _with_shared_unit(node: Node) -> Node:
    """``5-10 cm`` has the unit at both ends; so has ``3 and 4 cm``."""
    if not isinstance(node, Apply) or node.operation not in ("range", "list", "or") or len(node.parts) < 2:
        return node
    unit = _unit_of(node.parts[-1])
    if unit is None or any(units_of(part) for part in node.parts[:-1]):
        return node
    return Apply(node.operation, (*(Apply("mul", (part, unit)) for part in node.parts[:-1]), node.parts[-1]))


def _unit_of(node: Node) -> Node | None:
    is_quantity = isinstance(node, Apply) and node.operation == "mul" and isinstance(node.parts[1], Unit)
    return node.parts[1] if is_quantity and isinstance(node, Apply) else None


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
    """Whether units are needed to know the value, as of 2 hours 30 minutes."""
    return any(isinstance(each, Apply) and each.operation == "and" for each in nodes_of(node))


def _stripped(node: Node) -> Node:
    return _without_units(node, units_of(node))


def _with_same_names(one: Node, other: Node) -> list[tuple[Node, Node]]:
    """The two with what may be named in two ways named alike: red apples and apples, £ and pounds, $5 and a $5 fee."""
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
    """With letters that may be units as units: beside 3 hours, h is one."""
    return mapped(node, _as_unit)


def _as_unit(node: Node) -> Node:
    name = unit_named(node.name, one_letter=True) if isinstance(node, Symbol) and node.name in ONE_LETTER else None
    return node if name is None else Unit(name)


def _without_units(node: Node, names: Collection[str]) -> Node:
    return mapped(node, lambda each: Number(Fraction(1)) if isinstance(each, Unit) and each.name in names else each)


def _is_noun(name: str) -> bool:
    return measure(name).bases == ((name, 1),) and name.islower() and len(name) > 2


def _equal_without_base(one: Node, other: Node) -> Equality:
    """``123_5`` is 123 to who leaves the base out."""
    for based, plain in ((one, other), (other, one)):
        is_based = isinstance(based, Apply) and based.operation == "base"
        if is_based and isinstance(based, Apply) and isinstance(plain, Number) and same_value(based.parts[0], plain):
            return Equality.LOOSE
    return Equality.NONE
