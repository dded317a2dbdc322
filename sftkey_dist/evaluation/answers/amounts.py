"""Amounts in prose: where they stand, and which of them are rejected, modified or mentioned in passing."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftkey_dist.evaluation.answers.mathematics.formula import Apply, Node, Number, Symbol, Unit, nodes_of
from sftkey_dist.evaluation.answers.mathematics.grammar import read_prefix
from sftkey_dist.evaluation.answers.mathematics.notation import Token
from sftkey_dist.evaluation.answers.mathematics.units import CURRENCY_MARKS
from sftkey_dist.evaluation.answers.mathematics.values import has_value
from sftkey_dist.evaluation.answers.statement import refuses
from sftkey_dist.evaluation.answers.vocabulary import words

_OF_SEVERAL = frozenset({"list", "or", "and", "pm", "range", "date", "remainder", "clock", "bound"})
_ARTICLES = frozenset({"the", "a", "all", "his", "her", "their", "these", "those", "every"})
_PREPOSITIONS = frozenset(["for", "in", "of", "after", "over", "per", "every", "within", "during", "by", "with"])
_MODIFYING = words(
    "squared cubed factorial negative below above tenth tenths hundredth hundredths half halves third thirds quarter "
    "quarters fifth fifths divided times plus minus mod doubled halved root more max + M k"
)
_MODIFYING_BEFORE = words("twice thrice double triple half except without excluding")
_PART_WORDS = words(
    "half third thirds quarter quarters fourth fifth fifths sixth eighth tenth tenths double triple twice"
)
_BOUNDS_BEHIND = (["or", "more"], ["or", "fewer"], ["or", "less"], ["at", "least"], ["at", "most"])
_DOUBTING_ASIDES = words("or not negative minus wrong incorrect no")
_BOUNDING = re.compile(
    r"\b(?:at (?:least|most)|up to|(?:more|less|fewer|greater|larger|smaller|higher|lower) than|over|under|above|below"
    r"|minimum of|maximum of)\s*$",
    re.IGNORECASE,
)
"""Words before a number that is a bound and not the value."""
_CLAUSE_ENDS = frozenset({"but", ",", ";", ".", "so"})
_BEGINNING = frozenset({"-", "(", "\\frac", "\\sqrt", "[", "+", *CURRENCY_MARKS})
_MAX_READ, _LONGEST_TOKENS = 40, 60
"""Maximum number of places that are tried, the last ones, and of tokens of one amount."""


@dataclass(frozen=True)
class FoundAmount:
    """An amount in prose, from token ``start`` to token ``end``, exclusive."""

    node: Node
    start: int
    end: int


# A text is searched for the quantity that it states, and again to find out whether it states only one.
@functools.lru_cache(maxsize=4)
def amounts_in(tokens: tuple[Token, ...]) -> tuple[FoundAmount, ...]:
    """The amounts in prose, except rejected and modified ones. Asides and circumstances count only without others."""
    found: list[FoundAmount] = []
    beginnings = {*[place for place in range(len(tokens)) if _may_begin(tokens, place)][-_MAX_READ:]}
    place = min(beginnings, default=len(tokens))
    while place < len(tokens):
        read = _read_at(tokens, place) if place in beginnings else None
        node = amount_of(read[0]) if read is not None else None
        if read is None or node is None:
            place += 1
            continue
        found.append(FoundAmount(node, place, place + read[1]))
        place += max(1, read[1])
    kept = [each for each in found if not (_is_rejected(tokens, each) or _is_modified(tokens, each))]
    outside = [each for each in kept if not _is_aside(tokens, each)] or kept
    return tuple(each for each in outside if not _is_circumstance(tokens, each)) or tuple(outside)


def _read_at(tokens: Sequence[Token], place: int) -> tuple[Node, int] | None:
    """A quantity with its units, otherwise the number alone."""
    return read_prefix(tokens[place : place + _LONGEST_TOKENS]) or (
        read_prefix(tokens[place : place + 1]) if tokens[place].kind == "number" else None
    )


def _may_begin(tokens: Sequence[Token], place: int) -> bool:
    token = tokens[place]
    before = tokens[place - 1] if place else None
    if token.text.lower() in ("minus", "negative"):
        return place + 1 < len(tokens) and tokens[place + 1].kind == "number"
    if token.text in ("-", "+"):  # a dash before a space begins a list, or follows a word
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        touches = following is not None and following.start == token.end
        return touches and (before is None or before.end < token.start)
    if token.kind in ("clock", "date") or token.text in _BEGINNING:
        return True
    is_inside_word = before is not None and before.kind == "word" and before.end == token.start
    return token.kind == "number" and not is_inside_word and not _is_coefficient(tokens, place)


def _is_coefficient(tokens: Sequence[Token], place: int) -> bool:
    """Whether letters touch the number that are neither its unit nor its scale, as in ``16x``."""
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    touches = following is not None and following.kind == "word" and following.start == tokens[place].end
    return touches and read_prefix(tokens[place : place + 2]) is None


def _is_rejected(tokens: Sequence[Token], found: FoundAmount) -> bool:
    """Whether its clause rejects it, as in `not 5`, `cannot be 5` and `5 is wrong`; `not 4 but 5` does not reject 5."""
    before, after = "", ""
    for token in reversed(tokens[max(0, found.start - 5) : found.start]):
        is_exclusion = token.text.lower() == "but" and before == ""
        if (token.text.lower() in _CLAUSE_ENDS and not is_exclusion) or token.kind == "number":
            break
        before = f"{token.text} {before}"
    for token in tokens[found.end : found.end + 4]:
        if token.text.lower() in _CLAUSE_ENDS or token.kind == "number":
            break
        after = f"{after} {token.text}"
    return (
        _BOUNDING.search(before) is not None
        or refuses(re.sub(r"(?<=n) ' t\b", "'t", before))
        or refuses(re.sub(r"(?<=n) ' t\b", "'t", after))
    )


def _is_modified(tokens: Sequence[Token], found: FoundAmount) -> bool:
    """Whether the words beside it change its value, as in `5 squared`, `twice 5`, `half of 5` and `2 in 5`."""
    before = [token.text.lower() for token in tokens[max(0, found.start - 2) : found.start]]
    after = [token.text.lower() for token in tokens[found.end : found.end + 3]]
    is_part = len(before) == 2 and before[1] == "of" and before[0] in _PART_WORDS
    is_bounded = after[:2] in _BOUNDS_BEHIND or after == ["and", "a", "half"]
    is_doubted = after[:1] == ["("] and not _DOUBTING_ASIDES.isdisjoint(after[1:2])
    is_changed = not _MODIFYING_BEFORE.isdisjoint(before[-1:]) or not _MODIFYING.isdisjoint(after[:1])
    return is_changed or is_part or is_bounded or is_doubted or _is_ratio(tokens, found)


def _is_ratio(tokens: Sequence[Token], found: FoundAmount) -> bool:
    """Whether it is one of the numbers of `2 in 5` at the end of a text, where `in` may have been read as inches."""
    last = tokens[-4:-1] if tokens[-1].text == "." else tokens[-3:]
    kinds = [token.kind for token in last]
    is_ratio = kinds == ["number", "word", "number"] and last[1].text.lower() == "in"
    return is_ratio and any(token in last for token in tokens[found.start : found.end])


def _is_circumstance(tokens: Sequence[Token], found: FoundAmount) -> bool:
    """Whether it is a circumstance of another amount, as in `for the 16 glasses` and `in 5 years`; a price is not."""
    before = [token.text.lower() for token in tokens[max(0, found.start - 2) : found.start]]
    if before and before[-1] in _ARTICLES:
        before.pop()
    is_price = tokens[found.start].text in CURRENCY_MARKS
    return bool(before) and before[-1] in _PREPOSITIONS and not is_price


def _is_aside(tokens: Sequence[Token], found: FoundAmount) -> bool:
    return (found.start > 0 and tokens[found.start - 1].text == "(") or tokens[found.start].text == "("


def are_alternatives(tokens: Sequence[Token], one: FoundAmount, other: FoundAmount) -> bool:
    """Whether only an "or" stands between two amounts."""
    first, second = sorted((one, other), key=lambda each: each.start)
    between = [token.text.lower() for token in tokens[first.end : second.start]]
    return between in (["or"], [",", "or"], ["oder"], ["ou"], ["o"])


def amount_of(node: Node) -> Node | None:
    """The quantity that a formula states: the last side of `84/2 = 42`, 5 for `x = 5`; None if it has variables."""
    if isinstance(node, Apply) and node.operation.startswith("relation"):
        return _amount_of_relation(node)
    if isinstance(node, Apply) and node.operation in ("list", "or"):
        amounts = [amount_of(part) for part in node.parts]
        return None if None in amounts else Apply(node.operation, tuple(each for each in amounts if each is not None))
    leaves = nodes_of(node)
    if not all(_has_number(part) for part in _parts(node)) or any(_is_word_first(each) for each in leaves):
        return None
    if any(isinstance(each, Symbol) and each.name not in ("pi", "e") for each in leaves):
        return None
    if any(isinstance(each, Apply) and each.operation.startswith(("relation", "apply")) for each in leaves):
        return None
    return node if _is_defined(node) else None


def _amount_of_relation(relation: Apply) -> Node | None:
    """The last side of an equation that is an amount; an inequality states a bound, which equals no amount."""
    sides = [side for side in (amount_of(part) for part in relation.parts) if side is not None]
    signs = set(relation.operation.split()[1:])
    if not sides or signs <= {"=", "~"}:
        return sides[-1] if sides else None
    return Apply(f"bound {' '.join(sorted(signs))}", tuple(sides))


def _parts(node: Node) -> tuple[Node, ...]:
    """The quantities of a sequence or list; the quantity itself if it is only one."""
    is_several = isinstance(node, Apply) and node.operation in ("and", "list", "or")
    return node.parts if is_several and isinstance(node, Apply) else (node,)


def _has_number(node: Node) -> bool:
    return any(isinstance(each, Number) for each in nodes_of(node))


def _is_word_first(node: Node) -> bool:
    """Whether words precede the number, so that they are neither its unit nor an operand."""
    return (
        isinstance(node, Apply)
        and node.operation in ("mul", "add", "sub")
        and isinstance(node.parts[0], Unit)
        and _has_number(node.parts[1])
    )


def _is_defined(node: Node) -> bool:
    """Whether a quantity, or each of several, has a value."""
    if isinstance(node, Apply) and ("," in node.operation or node.operation.split()[0] in _OF_SEVERAL):
        return all(_is_defined(part) for part in node.parts)
    return has_value(node)
