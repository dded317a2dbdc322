"""Combines the rulings of several judges into one result.

A judge can fail to give a ruling for two kinds of reasons. Infrastructure: the server is unreachable, slow, overloaded,
out of quota or broken (5xx), or the budget is spent. The answer then stays unjudged. The candidate's text: the server
repeatedly refuses or filters the prompt, the prompt is too long, or the reply cannot be parsed, although the judge
rules on the same question when the reference takes the candidate's place. That judge then votes against the text.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sftkey_dist.endpoint import CUT_OFF, failure_name
from sftkey_dist.evaluation.judge.reading import Ruling

NOT_ASKED = "not_asked_after_failures"
_NO_MAJORITY = "no_majority"
_UNJUDGEABLE = "the judge fails on this text ({}), but not on the reference in its place"
_MAY_PASS = frozenset(
    {
        NOT_ASKED,
        "APIConnectionError",
        "APITimeoutError",
        "ConflictError",
        "InternalServerError",
        "RateLimitError",
        "HTTP 403",
        "HTTP 404",
        "HTTP 405",
        "HTTP 408",
        "HTTP 425",
        "out_of_quota",
        "empty_reply",
        "no_completion",
    }
)
_MAY_BE_OF_TEXT = frozenset(
    {
        "BadRequestError",
        "UnprocessableEntityError",
        "HTTP 403",
        "HTTP 404",
        "HTTP 405",
        "HTTP 413",
        "HTTP 414",
        "HTTP 431",
        "HTTP 451",
        "empty_reply",
        "filtered",
        "no_completion",
        "prompt_refused",
        "prompt_too_long",
        "refused",
        "thinking_only",
        "tool_call_only",
        "unreadable_reply",
        CUT_OFF,
    }
)


@dataclass(frozen=True)
class Unjudgeable:
    """A failure of a judge that the candidate's text causes."""

    failure: str


Rulings = Mapping[str, Ruling | Unjudgeable | str]
"""The ruling of each judge, by its name. A string is the reason why there is none."""


@dataclass(frozen=True)
class JuryResult:
    """The combined result of all judges on one answer.

    Attributes:
        value: ``correct`` or ``incorrect``, a rating, or "" if there is none.
        reason: the reason of a judge with this value, or why there is no value.
        votes: the value of each judge, or why it gave none.
        is_final: whether asking again cannot change the result.
        unjudgeable: name of the failure without which there would be no majority for the value.
    """

    value: str
    reason: str
    votes: dict[str, str]
    is_final: bool = True
    unjudgeable: str = ""


def is_transient(failure: str) -> bool:
    """Whether the same question may succeed later. Servers recover; unreadable replies stay unreadable."""
    return failure_name(failure) in _MAY_PASS


def may_be_of_text(failure: str) -> bool:
    """Whether the candidate's text may cause the failure. Asking the question with the reference decides it."""
    return failure_name(failure) in _MAY_BE_OF_TEXT


def majority(rulings: Rulings) -> JuryResult:
    """The value that more than half of all judges gave. A failure that the text causes is a vote for incorrect."""
    given = _votes_given(rulings, "incorrect")
    for value, count in Counter(ruling.value for ruling, _ in given).items():
        if 2 * count > len(rulings):
            return _of_majority(rulings, [vote for vote in given if vote[0].value == value])
    return _undecided(rulings)


def median_rating(rulings: Rulings) -> JuryResult:
    """The median rating, if more than half of all judges gave one; of two middle ones the lower."""
    given = sorted(_votes_given(rulings, "1"), key=lambda vote: int(vote[0].value))
    if 2 * len(given) > len(rulings):
        middle, failure = given[(len(given) - 1) // 2]
        return JuryResult(middle.value, middle.reason, _votes(rulings), unjudgeable=failure)
    return _undecided(rulings)


def _votes_given(rulings: Rulings, worst: str) -> list[tuple[Ruling, str]]:
    """The rulings, each with "", then the rulings that stand for failures that the text causes, with their names."""
    given = [(ruling, "") for ruling in rulings.values() if isinstance(ruling, Ruling)]
    failures = [ruling.failure for ruling in rulings.values() if isinstance(ruling, Unjudgeable)]
    return given + [(Ruling(worst, _UNJUDGEABLE.format(failure)), failure) for failure in failures]


def _of_majority(rulings: Rulings, votes: list[tuple[Ruling, str]]) -> JuryResult:
    """The result of the votes for one value. It names a failure if the rulings alone would not be a majority."""
    (ruling, _), *_ = votes
    rulings_alone = sum(not failure for _, failure in votes)
    needed = next((failure for _, failure in votes if failure), "") if 2 * rulings_alone <= len(rulings) else ""
    return JuryResult(ruling.value, ruling.reason, _votes(rulings), unjudgeable=needed)


def _undecided(rulings: Rulings) -> JuryResult:
    failures = [ruling for ruling in rulings.values() if isinstance(ruling, str)]
    return JuryResult(
        "", failures[0] if failures else _NO_MAJORITY, _votes(rulings), is_final=not any(map(is_transient, failures))
    )


def _votes(rulings: Rulings) -> dict[str, str]:
    return {name: _vote(ruling) for name, ruling in rulings.items()}


def _vote(ruling: Ruling | Unjudgeable | str) -> str:
    if isinstance(ruling, Unjudgeable):
        return f"unjudgeable: {ruling.failure}"
    return ruling.value if isinstance(ruling, Ruling) else ruling
