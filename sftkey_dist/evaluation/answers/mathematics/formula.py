"""A formula, a number or a quantity as a tree."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

CONSTANTS = frozenset({"pi", "e", "i", "infty"})
"""Names of symbols that are not variables."""


@dataclass(frozen=True)
class Number:
    """An exact number."""

    value: Fraction


@dataclass(frozen=True)
class Symbol:
    """A variable or a constant, with its index and accents."""

    name: str


@dataclass(frozen=True)
class Unit:
    """A unit of measure, or the noun of what is counted."""

    name: str


@dataclass(frozen=True)
class Apply:
    """An operation on parts, such as ``add``, ``sin``, ``(,)`` for a tuple, ``list``."""

    operation: str
    parts: tuple["Node", ...]


Node = Number | Symbol | Unit | Apply


def parts_of(node: Node) -> tuple[Node, ...]:
    """The direct parts of a node."""
    return node.parts if isinstance(node, Apply) else ()


def nodes_of(node: Node) -> list[Node]:
    """All nodes of a tree."""
    return [node, *(each for part in parts_of(node) for each in nodes_of(part))]


def units_of(node: Node) -> frozenset[str]:
    """Names of the units in a tree."""
    return frozenset(each.name for each in nodes_of(node) if isinstance(each, Unit))


def mapped(node: Node, change: Callable[[Node], Node]) -> Node:
    """The tree with each node replaced, from the leaves up."""
    if isinstance(node, Apply):
        node = Apply(node.operation, tuple(mapped(part, change) for part in node.parts))
    return change(node)
