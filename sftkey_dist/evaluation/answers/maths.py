"""Mathematics: a formula if the whole text can be read as one, otherwise the text as it is written."""

import re
from dataclasses import dataclass

from sftkey_dist.evaluation.answers.mathematics.equality import Equality, equality
from sftkey_dist.evaluation.answers.mathematics.formula import Apply, Node, Number, Symbol, Unit, nodes_of
from sftkey_dist.evaluation.answers.mathematics.grammar import is_name, read_formula
from sftkey_dist.evaluation.answers.mathematics.notation import simplified, spans_of_mathematics
from sftkey_dist.evaluation.answers.mathematics.units import unit_named
from sftkey_dist.evaluation.answers.numbers import read_quantity
from sftkey_dist.evaluation.answers.statement import refuses, stated, unwrapped, without_lead
from sftkey_dist.evaluation.answers.text import normalized

_WORD = re.compile(r"(?=.*[aeiouy])[A-Za-z]{3,}")
"""A single word, not a product of symbols: at least three letters with a vowel."""

_JOINED = re.compile(r"\$[^$]+\$(?:\s*(?:,\s*)?(?:,|and|or)\s*\$[^$]+\$)+")
_LATEX = re.compile(r"\\(?!text|boxed|[$%,;!])")
"""LaTeX commands that show that a text is a formula and not prose with a number."""


@dataclass(frozen=True)
class Formula:
    """What a text says in mathematics.

    Attributes:
        node: the formula; None if the text is not a formula.
        text: the text that was read, to compare texts that are not formulas.
        is_plain: whether the text is a number in digits.
    """

    node: Node | None
    text: str
    is_plain: bool


def read_mathematics(text: str) -> Formula:
    """The formula that a text is or states, otherwise the text itself."""
    text = unwrapped(text)
    clause = unwrapped(stated(text))
    for each in _candidates(text, clause):
        node = _formula(each)
        if node is not None:
            return Formula(node, each, isinstance(node, Number) and each == text)
    quantity = read_quantity(text) if re.search(r"\d", text) else None
    if quantity is not None and not refuses(clause) and not _LATEX.search(text):
        return Formula(quantity.node, text, is_plain=False)
    return Formula(None, unwrapped(without_lead(text)), is_plain=False)


def _candidates(text: str, clause: str) -> list[str]:
    """Texts that may be the formula, in the order in which they are tried.

    They are the whole text, the text after an announcement, several formulas that are joined, and single formulas, the
    last one first. A repeated text is tried at its last place.
    """
    found = [text, unwrapped(without_lead(text))]
    joined = _JOINED.search(clause)
    if joined is not None:  # $1$ and $2$ are both
        found.append(re.sub(r"\s*(?:,\s*)?(?:,|and|or)\s*(?=\$)", ", ", joined.group()).replace("$", ""))
    found += [clause, *map(unwrapped, reversed(spans_of_mathematics(clause)))]
    found += map(unwrapped, reversed(spans_of_mathematics(text)))
    return list(dict.fromkeys(reversed(found)))[::-1]


def same_mathematics(one: Formula, other: Formula) -> Equality:
    """How far two texts agree."""
    if one.node is not None and other.node is not None:
        return equality(one.node, other.node)
    if _canonical(one.text) == _canonical(other.text):
        return Equality.FULL
    if _letters(one.text) == _letters(other.text):
        return Equality.LOOSE
    if one.node is not None or other.node is not None:
        return Equality.NONE
    return Equality.LOOSE if _words(one.text) == _words(other.text) else Equality.NONE


def _words(text: str) -> str:
    """A text without commands for words and without an article. The case of short texts is kept: CO is not Co."""
    text = re.sub(r"\\(?:text\w*|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    return text if len(text) < 3 else re.sub(r"^(?:an?|the) ", "", normalized(text))


def _formula(text: str) -> Node | None:
    """The formula in a text; None if it has only words, or nothing with a value."""
    if _WORD.fullmatch(text) and not is_name(text):
        return None
    node = read_formula(text, with_units=False)
    if node is None or not _says_something(node):
        return None
    return node


def _says_something(node: Node) -> bool:
    """Whether a tree is mathematics and not prose, of which the grammar makes products of words."""
    if any(_is_prose(each) for each in nodes_of(node)):
        return False
    if isinstance(node, Apply) and (node.operation.startswith("relation") or node.operation in ("list", "or", "and")):
        return all(_says_something(part) or isinstance(part, Unit) for part in node.parts) and any(
            _says_something(part) for part in node.parts
        )
    leaves = nodes_of(node)
    if isinstance(node, Apply) and "," in node.operation and not node.parts:
        return True
    return any(isinstance(each, Number | Symbol) for each in leaves)


def _is_prose(node: Node) -> bool:
    if not isinstance(node, Apply):
        return False
    if node.operation.startswith("relation"):
        return any(isinstance(part, Unit) and " " in part.name for part in node.parts)
    first = node.parts[0] if node.parts else None
    return node.operation in ("mul", "div", "add", "sub") and _is_noun(first)


def _is_noun(node: Node | None) -> bool:
    """Whether a part is a word other than a unit of measure."""
    return isinstance(node, Unit) and unit_named(node.name, one_letter=True) is None


def _letters(text: str) -> str:
    """The text without marks of indices and groups, as chemical formulas are often written."""
    return re.sub(r"\\(?:mathrm|text|ce)(?![A-Za-z])|[{}_\s]", "", simplified(text))


def _canonical(text: str) -> str:
    """The text in canonical notation without spaces."""
    return re.sub(r"\{([^{}\\])\}", r"\1", re.sub(r"\s+", "", simplified(text)))
