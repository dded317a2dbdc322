"""Brings two readings to comparable forms: `x = 5` to 5, `x > 3` to (3, ∞), and ± to its two values."""

from collections.abc import Sequence
from fractions import Fraction

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
from sftkey_dist.evaluation.answers.mathematics.units import measure
from sftkey_dist.evaluation.answers.mathematics.values import same_value
from sftkey_dist.evaluation.answers.vocabulary import words

_BY_PARTS = words("cup cap matrix row date range remainder modulo")
_OF_VALUES = {"{,}", "or", "list"}
TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
"""The sign of an inequality whose sides are exchanged."""


def comparable(one: Node, other: Node) -> tuple[Node, Node]:
    """Both readings in the same form, as far as possible."""
    if "°" in units_of(one) | units_of(other):
        one, other = _in_degrees(one), _in_degrees(other)
    one, other = _with_shared_unit(_spread(one)), _with_shared_unit(_spread(other))
    one, other = _like(one, other), _like(other, one)
    for turned in (False, True):
        first, second = (other, one) if turned else (one, other)
        if kind_of(first) == "relation" and kind_of(second) != "relation":
            bare = _without_subject(first)
            first = bare if bare is not None else first
        one, other = (second, first) if turned else (first, second)
    if kind_of(one) == "relation" and kind_of(other) == "relation" and _subject(one) == _subject(other):
        first_interval, second_interval = _as_interval(one), _as_interval(other)
        if first_interval is not None and second_interval is not None:
            return first_interval, second_interval
    return _spread(one), _spread(other)


def kind_of(node: Node) -> str:
    """The kind of a reading; only readings of the same kind can be equal."""
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
    """Whether quantities have the same dimension, as hours and minutes have."""
    return len({_dimension(part) for part in parts}) == 1


def _dimension(node: Node) -> tuple[tuple[str, int], ...] | None:
    return next((measure(each.name).bases for each in nodes_of(node) if isinstance(each, Unit)), None)


def _in_degrees(node: Node) -> Node:
    """The reading with radians as 180/π degrees."""
    degrees = Apply("mul", (Apply("div", (Number(Fraction(180)), Symbol("pi"))), Unit("°")))
    return mapped(node, lambda each: degrees if each == Unit("rad") else each)


def _like(node: Node, other: Node) -> Node:
    """A reading in the form of the other, if it can be written in both forms."""
    if not isinstance(node, Apply) or not isinstance(other, Apply):
        return node
    if other.operation == "matrix":
        return _as_matrix(node)
    if other.operation == "(,)" or _is_bare_list(other):
        return _as_tuple(node)
    if _is_bare_list(node) and _as_tuple(other) is not other:  # the names of the other say in which order it stands
        return Apply("(,)", node.parts)
    if other.operation == "cup" and node.operation == "or":
        intervals = [_as_interval(part) for part in node.parts]
        return node if None in intervals else Apply("cup", tuple(each for each in intervals if each is not None))
    return _as_ratio(node, other)


def _as_matrix(node: Apply) -> Node:
    """A nested list such as ``[[1, 2], [3, 4]]``, or a number times a matrix, as one matrix."""
    if node.operation == "[,]" and all(isinstance(part, Apply) and part.operation == "[,]" for part in node.parts):
        return Apply("matrix", tuple(Apply("row", part.parts) for part in node.parts if isinstance(part, Apply)))
    scale, scaled = node.parts if node.operation == "mul" else (node, node)
    if scaled is not node and isinstance(scaled, Apply) and scaled.operation == "matrix":
        rows = (row.parts for row in scaled.parts if isinstance(row, Apply))
        return Apply("matrix", tuple(Apply("row", tuple(Apply("mul", (scale, each)) for each in row)) for row in rows))
    return node


def _as_tuple(node: Apply) -> Node:
    """Equations such as ``x = 1, y = 2`` as a tuple, if the variables are in alphabetical order."""
    subjects = [_named_subject(part) for part in node.parts] if node.operation == "list" else []
    if not subjects or None in subjects or subjects != sorted(set(map(str, subjects))):
        return node
    return Apply("(,)", tuple(part.parts[1] for part in node.parts if isinstance(part, Apply)))


def _is_bare_list(node: Apply) -> bool:
    """Whether it is a list such as ``1, 2``, which names no value."""
    return node.operation == "list" and not any(map(_subject, node.parts))


def _named_subject(node: Node) -> str | None:
    is_value = isinstance(node, Apply) and node.operation == "relation =" and isinstance(node.parts[0], Symbol)
    return node.parts[0].name if is_value and isinstance(node, Apply) and isinstance(node.parts[0], Symbol) else None


def _as_ratio(node: Node, other: Node) -> Node:
    """A range such as ``3 to 4`` as a ratio, if the other reading is a ratio such as ``3:4``."""
    is_ratio = isinstance(node, Apply) and node.operation == "range" and kind_of(other) == "clock"
    if is_ratio and isinstance(node, Apply) and all(isinstance(part, Number) for part in node.parts):
        return Apply("clock ratio", node.parts)
    return node


def _without_subject(relation: Node) -> Node | None:
    """What a relation states about a single symbol or function: the right side of `x = 5` and of `x \\in [0, 1]`."""
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


def _stated_value(relation: Apply) -> Node | None:
    """The last exact value of a chain such as `a + b = 5`, `x = 2 + 3 = 5` or `2/3 ≈ 0.667`."""
    signs = relation.operation.split()[1:]
    exact = (
        relation.parts[: signs.index("~") + 1]
        if "~" in signs and not _is_subject(relation.parts[0])
        else relation.parts
    )
    says_more = any(_has_symbol(part) and any(isinstance(each, Number) for each in nodes_of(part)) for part in exact)
    return None if says_more or _has_symbol(exact[-1]) else exact[-1]


def _as_interval(relation: Node) -> Node | None:
    """The interval of the symbol in `x > 3` or `3 < x \\le 5`; None for other relations."""
    if not isinstance(relation, Apply):
        return None
    signs, parts = relation.operation.split()[1:], relation.parts
    if signs == ["in"] and _is_subject(parts[0]):
        return parts[1]
    if not set(signs) <= TURNED.keys():
        return None
    infinity = Symbol("infty")
    if len(parts) == 2 and _is_subject(parts[1]):
        signs, parts = [TURNED[signs[0]]], (parts[1], parts[0])
    if len(parts) == 2 and _is_subject(parts[0]):
        if signs[0].startswith(">"):
            return Apply(("[" if "=" in signs[0] else "(") + ",)", (parts[1], infinity))
        return Apply("(," + ("]" if "=" in signs[0] else ")"), (Apply("neg", (infinity,)), parts[1]))
    if len(parts) == 3 and _is_subject(parts[1]) and signs[0][0] == signs[1][0]:
        low, high = (parts[0], parts[2]) if signs[0][0] == "<" else (parts[2], parts[0])
        low_sign, high_sign = signs if signs[0][0] == "<" else signs[::-1]
        return Apply(("[" if "=" in low_sign else "(") + "," + ("]" if "=" in high_sign else ")"), (low, high))
    return None


def _subject(relation: Node) -> Node | None:
    parts = relation.parts if isinstance(relation, Apply) else ()
    return next((part for part in parts if _is_subject(part)), None)


def _is_subject(node: Node) -> bool:
    if isinstance(node, Symbol):
        return node.name not in CONSTANTS
    if isinstance(node, Unit):
        return True
    return node.operation == "derivative" or node.operation.startswith("apply ") if isinstance(node, Apply) else False


def _has_symbol(node: Node) -> bool:
    return any(
        (isinstance(each, Symbol) and each.name not in CONSTANTS) or isinstance(each, Unit) for each in nodes_of(node)
    )


def _is_identity(left: Node, right: Node) -> bool:
    return kind_of(left) == kind_of(right) == "value" and same_value(left, right)


def _spread(node: Node) -> Node:
    """The two values of ``a ± b``."""
    if not any(isinstance(each, Apply) and each.operation == "pm" for each in nodes_of(node)):
        return node
    signs: tuple[str, ...] = ("add", "sub")
    return Apply("or", tuple(mapped(node, lambda each, sign=sign: _signed(each, sign)) for sign in signs))  # type: ignore[misc]


def _signed(node: Node, sign: str) -> Node:
    return Apply(sign, node.parts) if isinstance(node, Apply) and node.operation == "pm" else node


def _with_shared_unit(node: Node) -> Node:
    """The reading with the unit of the last part at every part: ``5-10 cm`` and ``3 and 4 cm``."""
    if not isinstance(node, Apply) or node.operation not in ("range", "list", "or") or len(node.parts) < 2:
        return node
    unit = _unit_of(node.parts[-1])
    if unit is None or any(units_of(part) for part in node.parts[:-1]):
        return node
    return Apply(node.operation, (*(Apply("mul", (part, unit)) for part in node.parts[:-1]), node.parts[-1]))


def _unit_of(node: Node) -> Node | None:
    is_quantity = isinstance(node, Apply) and node.operation == "mul" and isinstance(node.parts[1], Unit)
    return node.parts[1] if is_quantity and isinstance(node, Apply) else None
