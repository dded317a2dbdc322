"""Embedded data: credit memos with a long, varied reasoning and a one-word decision.

The decision follows from four facts of the case by a points rule with one veto. The reasoning weighs every fact
in words but never states the rule, so a model has to learn it from the decisions. Facts come in several wordings,
in the case in random order, among remarks that decide nothing.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from sftkey_dist.data.example import Example


@dataclass(frozen=True)
class _Level:
    points: int
    case_wordings: tuple[str, ...]
    memo_wordings: tuple[str, ...]


_FACTS: dict[str, tuple[_Level, _Level, _Level]] = {
    "income": (
        _Level(
            2,
            ("income has been stable for years", "the salary is fixed and permanent", "earnings are steady"),
            (
                "Steady earnings make the repayment plan credible.",
                "The fixed salary speaks for the applicant.",
            ),
        ),
        _Level(
            1,
            ("income varies with the season", "pay depends on commissions", "earnings fluctuate moderately"),
            ("Fluctuating pay leaves some uncertainty.", "Seasonal earnings call for a cushion."),
        ),
        _Level(
            0,
            ("income is irregular", "there is no regular salary", "earnings are hard to document"),
            ("Without regular earnings the plan rests on hope.", "Undocumented income weakens the file."),
        ),
    ),
    "debt": (
        _Level(
            2,
            ("existing debt is low", "hardly any other loans are open", "the debt ratio is small"),
            ("A small debt ratio leaves room for the new instalment.", "Other obligations are negligible."),
        ),
        _Level(
            1,
            ("existing debt is moderate", "two other loans are being repaid", "the debt ratio is average"),
            ("Other loans take an average share of the budget.", "Obligations are noticeable but bearable."),
        ),
        _Level(
            0,
            ("existing debt is high", "most income goes to other loans", "the debt ratio is excessive"),
            ("Other loans already absorb most of the budget.", "The debt burden is heavy."),
        ),
    ),
    "history": (
        _Level(
            2,
            ("all past bills were paid on time", "the payment record is clean", "no late payment is known"),
            ("A clean record suggests discipline.", "Nothing in the past payments raises concern."),
        ),
        _Level(
            1,
            (
                "a few payments came late",
                "two reminders were needed",
                "the payment record has small blemishes",
            ),
            ("Some reminders were needed in the past.", "The record shows small blemishes."),
        ),
        _Level(
            0,
            (
                "a loan was defaulted on",
                "debts were written off before",
                "the payment record shows a default",
            ),
            (
                "An earlier default weighs on the record.",
                "Creditors have lost money on this applicant before.",
            ),
        ),
    ),
    "collateral": (
        _Level(
            2,
            ("a house secures the loan", "collateral covers the amount fully", "full security is offered"),
            ("Full security limits a possible loss.", "The collateral covers the whole exposure."),
        ),
        _Level(
            1,
            (
                "a car secures part of the loan",
                "collateral covers half the amount",
                "partial security is offered",
            ),
            ("Part of the exposure would be recovered.", "Half the amount stays unsecured."),
        ),
        _Level(
            0,
            ("no security is offered", "the loan is unsecured", "there is no collateral"),
            ("Nothing could be recovered after a failure.", "The exposure would be entirely unsecured."),
        ),
    ),
}
_NAMES = (
    "Avery",
    "Blake",
    "Casey",
    "Devon",
    "Ellis",
    "Frankie",
    "Gray",
    "Harper",
    "Indigo",
    "Jules",
    "Kai",
    "Lane",
)
_PURPOSES = (
    "a kitchen",
    "a van",
    "new machines",
    "a roof",
    "a course of study",
    "a shop lease",
    "stock",
    "a boiler",
)
_REGIONS = ("the north", "the coast", "the capital", "the valley", "the border region", "the old town")
_CASE_REMARKS = (
    "The form was filed online.",
    "The branch knows the family.",
    "A second form is attached.",
    "The call was friendly.",
)
_MEMO_OPENINGS = (
    "The file is complete and was reviewed in full.",
    "We went through the application point by point.",
    "All documents were checked before this note was written.",
)
_MEMO_REMARKS = (
    "This point was discussed with the branch.",
    "The documents agree with the form.",
    "A colleague read this part again.",
    "No further inquiry was needed here.",
)
_MEMO_CLOSINGS = (
    "Taken together, the points above settle the matter.",
    "Weighing these points leads to the decision below.",
    "On balance the picture is clear enough to decide.",
)


def decide(levels: dict[str, int]) -> str:
    """The rule: points with two thresholds; an unsecured loan after a default is never made."""
    if levels["history"] == 2 and levels["collateral"] == 2:
        return "reject"
    points = sum(_FACTS[fact][level].points for fact, level in levels.items())
    return "approve" if points >= 5 else "review" if points == 4 else "reject"


def generate_memos(split: str, limit: int, seed: int) -> Iterator[Example]:
    """Yield ``limit`` distinct memos of a split; the splits of one seed have no prompt in common."""
    stream = random.Random(f"decision-memos/{seed}/{split}")  # noqa: S311 (data, not secrets)
    seen: set[str] = set()
    while len(seen) < limit:
        memo = _memo(stream, f"decision_memos/{split}:{len(seen) + 1}")
        if memo.prompt not in seen and _belongs_to_test(memo.prompt) == (split == "test"):
            seen.add(memo.prompt)
            yield memo


def _belongs_to_test(prompt: str) -> bool:
    """A fifth of all possible prompts, by content: no prompt can fall into both splits."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 5 == 0


def _memo(stream: random.Random, memo_id: str) -> Example:
    levels = {fact: stream.randrange(3) for fact in _FACTS}
    case = [stream.choice(_FACTS[fact][level].case_wordings).capitalize() + "." for fact, level in levels.items()]
    case.insert(stream.randrange(len(case) + 1), stream.choice(_CASE_REMARKS))
    name, amount = stream.choice(_NAMES), stream.randrange(2, 60) * 1000
    opening = f"{name} from {stream.choice(_REGIONS)} asks for {amount} for {stream.choice(_PURPOSES)}."
    return Example(
        id=memo_id,
        prompt=f"Approve, review or reject? {opening} {' '.join(case)}",
        values={"reasoning": _reasoning(stream, levels, name, amount), "answer": decide(levels)},
    )


def _reasoning(stream: random.Random, levels: dict[str, int], name: str, amount: int) -> str:
    sentences = [stream.choice(_MEMO_OPENINGS), f"{name} applies for {amount}."]
    for fact, level in levels.items():
        sentences.append(stream.choice(_FACTS[fact][level].memo_wordings))
        if stream.random() < 0.3:
            sentences.append(stream.choice(_MEMO_REMARKS))
    sentences.append(stream.choice(_MEMO_CLOSINGS))
    return " ".join(sentences)
