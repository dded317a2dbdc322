"""Generated data: credit memos with a long, varied reasoning and a one-word decision.

The decision follows from four facts of the case by a points rule with one veto. The reasoning discusses every fact but
never states the rule, so a model has to learn the rule from the decisions. Facts have several wordings and appear in
random order in the case, together with irrelevant remarks. The cases of a seed are the same for every length of the
reasoning and every rule.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sftkey_dist.data.example import Example

ReasoningLength = Literal["brief", "standard", "long"]
DecisionRule = Literal["one_fact", "points", "points_and_veto"]


@dataclass(frozen=True)
class MemoStyle:
    """What memos about the same cases can differ in.

    Attributes:
        lists_points: whether answers list the points of every fact before the decision.
        reasoning_length: `brief` names the four facts, `standard` discusses them, and `long` adds six remarks without
            any information about the case to each of them.
        decision_rule: `one_fact` decides by the payments alone, `points` by the points of all facts, `points_and_veto`
            also rejects an unsecured loan after a default.
    """

    lists_points: bool = False
    reasoning_length: ReasoningLength = "standard"
    decision_rule: DecisionRule = "points_and_veto"


@dataclass(frozen=True)
class _Level:
    points: int
    wordings: tuple[str, ...]
    comments: tuple[str, ...]


_FACTS: dict[str, tuple[_Level, _Level, _Level]] = {
    "income": (
        _Level(
            2,
            ("stable for years", "a fixed salary", "steady"),
            ("which makes the repayment plan credible", "which speaks for the applicant"),
        ),
        _Level(
            1,
            ("varying with the season", "based on commissions", "moderately fluctuating"),
            ("which leaves some uncertainty", "which calls for a cushion"),
        ),
        _Level(
            0,
            ("irregular", "hard to document", "without a regular salary"),
            ("so the plan rests on hope", "which weakens the file"),
        ),
    ),
    "debt": (
        _Level(
            2,
            ("low", "hardly any", "a small share of income"),
            ("which leaves room for the new instalment", "which is no burden"),
        ),
        _Level(
            1,
            ("moderate", "two other loans in repayment", "an average share of income"),
            ("which is noticeable but bearable", "which takes part of the budget"),
        ),
        _Level(
            0,
            ("high", "an excessive share of income", "many open loans"),
            ("which absorbs most of the budget", "which is a heavy burden"),
        ),
    ),
    "payments": (
        _Level(
            2,
            ("always on time", "a clean record", "no delay known"),
            ("which suggests discipline", "which raises no concern"),
        ),
        _Level(
            1,
            ("a few came late", "two reminders needed", "small blemishes"),
            ("which is a minor point", "which deserves a mention"),
        ),
        _Level(
            0,
            ("a loan defaulted", "debts written off", "a default on record"),
            ("which cost creditors money", "which weighs on the record"),
        ),
    ),
    "security": (
        _Level(
            2,
            ("a house", "the full amount covered", "full collateral"),
            ("which limits a possible loss", "which covers the exposure"),
        ),
        _Level(
            1,
            ("a car", "half the amount covered", "partial collateral"),
            ("so part would be recovered", "so part stays exposed"),
        ),
        _Level(
            0,
            ("none", "nothing offered", "no collateral"),
            ("so nothing would be recovered", "so all stays exposed"),
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
_MEMO_LEADS = ("As to {fact}: {wording}, {comment}.", "The {fact} entry reads {wording}, {comment}.")
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
_LONG_REMARKS = (
    "{name} read this part again on {day}.",
    "{name} from {region} was asked about the wording on {day}.",
    "The page is filed under {number} in {region}.",
    "Copy {number} of this page went to {name}.",
    "A call of {number} minutes about the form took place on {day}.",
    "The stamp on page {number} is from {day}.",
)
_NUM_LONG_REMARKS = 6
"""Of every fact."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_MEMO_CLOSINGS = (
    "Taken together, the points above settle the matter.",
    "Weighing these points leads to the decision below.",
    "On balance the picture is clear enough to decide.",
)


def decide(levels: dict[str, int], rule: DecisionRule = "points_and_veto") -> str:
    """The decision. Points have two thresholds; with a veto, an unsecured loan after a default is always rejected."""
    if rule == "one_fact":
        return ("approve", "review", "reject")[levels["payments"]]
    if rule == "points_and_veto" and levels["payments"] == 2 and levels["security"] == 2:
        return "reject"
    points = sum(_FACTS[fact][level].points for fact, level in levels.items())
    return "approve" if points >= 5 else "review" if points == 4 else "reject"


def generate_memos(split: str, limit: int, seed: int, style: MemoStyle = MemoStyle()) -> Iterator[Example]:
    """Yield ``limit`` distinct memos of a split. The two splits have no prompt in common.

    Args:
        split: train or test.
        limit: number of memos.
        seed: seed of all random choices.
        style: length of reasoning and answers, and the rule.
    """
    stream = random.Random(f"decision-memos/{seed}/{split}")  # noqa: S311 (data, not secrets)
    seen: set[str] = set()
    while len(seen) < limit:
        memo = _memo(stream, f"decision_memos/{split}:{len(seen) + 1}", style)
        if memo.prompt not in seen and _belongs_to_test(memo.prompt) == (split == "test"):
            seen.add(memo.prompt)
            yield memo


def _belongs_to_test(prompt: str) -> bool:
    """Whether a prompt is in the test split: a fifth of all prompts, by a hash, so no prompt can be in both splits."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 5 == 0


def _memo(stream: random.Random, memo_id: str, style: MemoStyle) -> Example:
    levels = {fact: stream.randrange(3) for fact in _FACTS}
    wordings = {fact: stream.choice(_FACTS[fact][level].wordings) for fact, level in levels.items()}
    case = [f"{fact.capitalize()}: {wording}." for fact, wording in wordings.items()]
    stream.shuffle(case)
    case.insert(stream.randrange(len(case) + 1), stream.choice(_CASE_REMARKS))
    name, amount = stream.choice(_NAMES), stream.randrange(2, 60) * 1000
    opening = f"{name} from {stream.choice(_REGIONS)} asks for {amount} for {stream.choice(_PURPOSES)}."
    prompt = f"Approve, review or reject? {opening} {' '.join(case)}"
    # Remarks have a stream of their own, and a brief reasoning takes as much from the common one as any other, so that
    # the cases that follow do not depend on the length.
    of_remarks = random.Random(prompt) if style.reasoning_length == "long" else None  # noqa: S311 (data, not secrets)
    reasoning = _reasoning(stream, levels, wordings, of_remarks)
    if style.reasoning_length == "brief":
        reasoning = " ".join(f"{fact.capitalize()} {wording}." for fact, wording in wordings.items())
    return Example(memo_id, prompt, {"reasoning": reasoning, "answer": _answer(levels, style)})


def _answer(levels: dict[str, int], style: MemoStyle) -> str:
    points = ", ".join(f"{fact} {_FACTS[fact][level].points}" for fact, level in levels.items())
    decision = decide(levels, style.decision_rule)
    return f"{points}: {decision}" if style.lists_points else decision


def _reasoning(
    stream: random.Random, levels: dict[str, int], wordings: dict[str, str], of_remarks: random.Random | None
) -> str:
    sentences = [stream.choice(_MEMO_OPENINGS)]
    for fact, level in levels.items():
        lead, comment = stream.choice(_MEMO_LEADS), stream.choice(_FACTS[fact][level].comments)
        sentences.append(lead.format(fact=fact, wording=wordings[fact], comment=comment))
        if stream.random() < 0.3:
            sentences.append(stream.choice(_MEMO_REMARKS))
        if of_remarks is not None:
            sentences.extend(_long_remark(of_remarks) for _ in range(_NUM_LONG_REMARKS))
    sentences.append(stream.choice(_MEMO_CLOSINGS))
    return " ".join(sentences)


def _long_remark(stream: random.Random) -> str:
    return stream.choice(_LONG_REMARKS).format(
        name=stream.choice(_NAMES),
        region=stream.choice(_REGIONS),
        day=stream.choice(_DAYS),
        number=stream.randrange(2, 20),
    )
