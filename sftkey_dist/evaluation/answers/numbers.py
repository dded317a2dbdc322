"""Quantities: a number with its unit, several of them, a range or a time, alone or in a text that states them."""

import re
from dataclasses import dataclass

from sftkey_dist.evaluation.answers.amounts import amount_of, amounts_in, are_alternatives
from sftkey_dist.evaluation.answers.mathematics.equality import Equality, equality
from sftkey_dist.evaluation.answers.mathematics.formula import Apply, Node, Number
from sftkey_dist.evaluation.answers.mathematics.grammar import read_formula
from sftkey_dist.evaluation.answers.mathematics.notation import tokens_of
from sftkey_dist.evaluation.answers.mathematics.shorthand import prepared
from sftkey_dist.evaluation.answers.mathematics.spoken import spoken_number
from sftkey_dist.evaluation.answers.statement import is_approximate, stated, unwrapped, without_lead
from sftkey_dist.evaluation.answers.text import normalized

_CONCLUDING = re.compile(
    r"(?:=|→|⇒|->|\b(?:so|therefore|thus|hence|leaving|leaves|equals|gives|makes|totalling|totaling"
    r"|which is|that is|i\.e\.)\b)\W*",
    re.IGNORECASE,
)
_WORD_VALUES = {
    **dict.fromkeys(("none", "nothing", "nobody"), "none"),
    **dict.fromkeys(("infinite", "infinity", "infinitely many", "infinitely many solutions"), "infinite"),
    **dict.fromkeys(("undefined", "indeterminate", "not defined", "does not exist", "dne"), "undefined"),
    **dict.fromkeys(("no solution", "no solutions", "no real solution", "impossible", "empty set"), "no solution"),
}
"""Words that take the place of a number."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SYMBOLS = re.compile(r"[A-Za-z\\\d]")
_WORD = re.compile(r"(?<![A-Za-z\\])[^\W\d_]{2,}|[\u3040-\u9fff]")
_ASIDE = re.compile(r"(?=[^(]*\w)([^()]*\S)\s+\(([^()]*)\)")
_PLAIN = re.compile(
    r"[-+]?[$\u20ac\u00a3]?\d[\d,]*(?:\.\d*[1-9])?(?:\s?(?:%|cm|km|kg|meters|hours|minutes|seconds|days|dollars))?"
)
"""Digits with at most a unit, which can be read in one way only; a point may not be one that groups thousands."""
_MAX_TOKENS = 600


@dataclass(frozen=True)
class Quantity:
    """A quantity in a text.

    Attributes:
        node: the value with its units; or several values, a range, or a time.
        is_whole: whether the text contains nothing else.
        is_plain: whether it is whole and consists of digits with at most a unit, which can be read in one way only.
        is_only: whether it is the only quantity in the text.
    """

    node: Node
    is_whole: bool
    is_plain: bool
    is_only: bool = True


def last_quantity(text: str) -> Quantity | None:
    """The quantity that the whole text is, otherwise the last one in it; None if there is none."""
    found = quantities_in(text)
    return found[-1] if found else None


def quantities_in(text: str) -> list[Quantity]:
    """The quantities in a text, in order; a single one if the whole text is a quantity."""
    node = _whole(unwrapped(text))
    if node is not None:
        return [Quantity(node, is_whole=True, is_plain=False)]
    amounts = amounts_in(tuple(tokens_of(prepared(text, with_units=True))[-_MAX_TOKENS:]))
    return [Quantity(each.node, is_whole=False, is_plain=False) for each in amounts]


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities agree; one of them may leave out the unit."""
    return equality(one.node, other.node) is not Equality.NONE


def read_quantity(text: str) -> Quantity | None:
    """The quantity that the whole text is, otherwise the one that it states; None if there is none."""
    text = unwrapped(text)
    node = _whole(text)
    if node is not None:
        return Quantity(node, is_whole=True, is_plain=_PLAIN.fullmatch(text) is not None)
    bare = without_lead(text)
    node = _whole(bare)
    if node is not None:
        return Quantity(node, is_whole=not is_approximate(text), is_plain=False)
    clause = unwrapped(stated(text))
    node = _whole(clause) or _found(clause)
    if node is None and clause != text:
        node = _found(text)
    if node is None:
        return None
    return Quantity(node, is_whole=False, is_plain=False, is_only=len(quantities_in(text)) < 2)


def _whole(text: str) -> Node | None:
    """The quantity that the whole text is, in digits or in words; None if it is not one."""
    aside = _ASIDE.fullmatch(text)
    if aside is not None:  # 12 (3 + 9) states one quantity twice
        first, again = _read(aside[1]), _read(aside[2])
        is_repeated = first is not None and again is not None and equality(first, again) is not Equality.NONE
        return first if is_repeated else None
    node = _read(text)
    if node is not None:
        return node
    if (word := _WORD_VALUES.get(normalized(text))) is not None:
        return Apply(f"bound {word}", ())
    spoken = spoken_number(text)
    if spoken is None:
        return None
    value, rest = spoken
    if not rest.strip():
        return Number(value)
    is_count = value >= 0 and value.denominator == 1
    # With /1, a fraction that follows does not make a mixed number.
    return _read(f"{value}/1{rest}") if is_count else None


def _read(text: str) -> Node | None:
    node = read_formula(text, with_units=True)
    return None if node is None else amount_of(node)


def _found(text: str) -> Node | None:
    """The quantity that prose states: the conclusion if there is one, otherwise the first one if it begins the text,
    otherwise the last one.

    Alternatives are returned together, and rejected quantities do not count.
    """
    simple = prepared(text, with_units=True)
    if not _WORD.search(simple) and _SYMBOLS.search(_NUMBER.sub("", simple, count=1)):
        return None  # text that is not prose is not read in part
    conclusions = list(_CONCLUDING.finditer(simple))
    for conclusion in reversed(conclusions):
        if re.search(r"\d", simple[conclusion.end() :]):
            return _chosen(simple[conclusion.end() :], concluded=True)
    return _chosen(simple, concluded=False)


def _chosen(simple: str, *, concluded: bool) -> Node | None:
    tokens = tuple(tokens_of(simple)[-_MAX_TOKENS:])
    found = amounts_in(tokens)
    if not found and re.search(r"\d", simple) is None:
        spoken = spoken_number(simple)
        return Number(spoken[0]) if spoken is not None else None
    if not found:
        return None
    opens = found[0].start == 0 or concluded
    chosen = found[0] if opens else found[-1]
    others = [each for each in found if each is not chosen]
    if any(are_alternatives(tokens, chosen, each) for each in others):
        return Apply("or", tuple(each.node for each in found))
    return chosen.node
