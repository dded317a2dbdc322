"""Finds which of several names a text chooses. A statement outweighs a mention, and a rejected name is not chosen."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sftkey_dist.evaluation.answers.statement import announces, last_announcement, refuses

_CLAUSE_END = re.compile(
    r"(?<=[.!?;])\s+|\n+|[;。；，]\s*"
    r"|,\s+(?=(?:but|not|so|and not|rather|however|because|since|while|whereas|therefore|thus|which|as)\b)"
    r"|,?(?<!anything)(?<!everything)\s+(?=(?:but|however|because|since|while|whereas|although|though"
    r"|as (?:there|it|they|he|she|we|i)|sondern|mais|sino|ma)\b)"
    r"|,\s+(?=[(\[]?\w+[)\]]?\s+(?:is|are|seems)\b)|,\s+(?=(?:i|we|which)\s)|\s+[—–-]+\s+",
    re.IGNORECASE,
)
_REPLACED = re.compile(r"\b(?:rather than|instead of|over|as opposed to|except(?: for)?|unlike)\b", re.IGNORECASE)
_CONTRAST = re.compile(r"\s*not\s[^,]+,\s*(?!or\b|and\b|nor\b)", re.IGNORECASE)
"""The beginning of `not A, B`."""
_BUT = re.compile(r"\s*(?:but|however|sondern|mais|sino|ma)\b", re.IGNORECASE)
_CHOOSING = re.compile(
    r"\b(?:i\s+(?:would\s+|will\s+)?|i['’](?:d|ll)\s+|we\s+|let['’]?s\s+)?(?:pick|choose|select|chose|picked|selected"
    r"|go(?:ing)? with|opt(?:ing)? for|settle on|recommend|vote for|leaves|leaving)\b"
    r"|\b(?:is|was)\s+(?:the\s+)?(?:only\s+)?(?:correct|right|best|better|true|accurate|most likely)\b"
    r"|\b(?:must|should|has to) be\b|\b(?:correct|right)(?:\s+\w+)? is\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\s*,?\s*(?:because|since|as)\b", re.IGNORECASE)
_NAME = "\u25a1"
"""Stands for a name in a clause, so that a name such as `no` is not read as a refusal."""
_BEFORE_REFUSED = (
    r"(?:(?:unable|fail(?:s|ed)?|declin(?:e|es|ed)|too \w+|mistake|wrong|error|unwise) to|hardly|avoid|refrain from"
    r"|advis(?:e|es|ed) against)"
)
_AUXILIARIES = r"(?: (?:is|was|are|were|be|been|being|has|have|must|should|to|will))+"
_REFUSED_NAME = re.compile(
    rf"\b{_BEFORE_REFUSED} (?:\w+ ){{0,2}}{_NAME}"
    rf"|{_NAME}(?: \w+)?{_AUXILIARIES} (?:denied|declined|withheld|refused|invalid|impossible|out of the question)\b"
    rf"|{_NAME} (?:denied|declined|withheld|refused)(?=\s*(?:[.,;!]|$))",
    re.IGNORECASE,
)
"""What rejects a name only in front of it or behind it, as in `unable to approve` and `the refund is denied`."""
_SPACES = re.compile(r"\s{2,}")
_MAX_CHARACTERS = 6000
_SHORT_CHARACTERS = 400


@dataclass(frozen=True)
class Mention:
    """A name in a text, from ``start`` to ``end``."""

    name: str
    start: int
    end: int


Find = Callable[[str], Sequence[Mention]]


@dataclass(frozen=True)
class _Clause:
    """The names in a clause, and whether the clause rejects or states them, contrasts, asks, or gives a reason."""

    names: tuple[str, ...]
    is_rejected: bool
    is_stated: bool
    is_contrast: bool = False
    is_question: bool = False
    is_reason: bool = False


def choose(text: str, find: Find) -> str | None:
    """The name that a text chooses; None if it chooses none or several."""
    text = _SPACES.sub(lambda match: "\n" if "\n" in match.group() else " ", text[-_MAX_CHARACTERS:])
    clauses = [clause for part in _CLAUSE_END.split(text) for clause in _clauses_of(part, find)]
    accepted = [clause for clause in clauses if not clause.is_rejected]
    rejected = {name for clause in clauses if clause.is_rejected for name in clause.names}
    asked = [clause for clause in accepted if not clause.is_question]
    accepted = asked or accepted
    stated = [clause for clause in accepted if clause.is_stated]
    if stated:
        return stated[-1].names[0] if len(stated[-1].names) == 1 else None
    contrasts = [clause for clause in accepted if clause.is_contrast]
    if contrasts and len(contrasts[-1].names) == 1:  # some think A, but it is B
        return contrasts[-1].names[0]
    if len(text) > _SHORT_CHARACTERS:  # what a long text mentions in passing is not a choice
        return None
    chosen = [clause for clause in accepted if not clause.is_reason] or accepted  # `B, because A meows` chooses B
    left = dict.fromkeys(name for clause in chosen for name in clause.names if name not in rejected)
    return next(iter(left)) if len(left) == 1 else None


def _clauses_of(text: str, find: Find) -> list[_Clause]:
    """The clauses of a text that name something; what follows `rather than` is a rejection of its own."""
    replaced = _REPLACED.search(text)
    if replaced is not None and find(text[replaced.end() :]) and find(text[: replaced.start()]):
        after = tuple(dict.fromkeys(mention.name for mention in find(text[replaced.end() :])))
        return [*_clauses_of(text[: replaced.start()], find), _Clause(after, is_rejected=True, is_stated=False)]
    mentions = find(text)
    if not mentions:
        return []
    contrast = _CONTRAST.match(text)
    if contrast is not None and len(mentions) == 2 and mentions[1].start >= contrast.end():
        return [*_clauses_of(text[: contrast.end()], find), *_clauses_of(text[contrast.end() :], find)]
    rest = text
    for mention in sorted(mentions, key=lambda each: -each.start):
        rest = rest[: mention.start] + _NAME + rest[mention.end :]
    announced = last_announcement(text)
    behind = [mention for mention in mentions if mention.start >= announced]
    names = tuple(dict.fromkeys(mention.name for mention in (behind or mentions)))
    clause = _Clause(
        names,
        is_rejected=refuses(rest) or _REFUSED_NAME.search(rest) is not None,
        is_stated=announces(rest) or _CHOOSING.search(rest) is not None,
        is_contrast=_BUT.match(text) is not None,
        is_question=text.rstrip().endswith("?"),
        is_reason=_REASON.match(text) is not None,
    )
    return [clause]


def without_inner(mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions that are not part of a longer one, in order."""
    kept: list[Mention] = []
    for mention in sorted(mentions, key=lambda each: (each.start - each.end, each.start)):
        if not any(each.start <= mention.start and mention.end <= each.end for each in kept):
            kept.append(mention)
    return sorted(kept, key=lambda each: each.start)
