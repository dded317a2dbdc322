"""From the rulings of several judges to one opinion; a ruling that is missing is the reason why.

Why a judge gives no ruling is of two kinds. Infrastructure: the server is away, slow, overloaded, out of quota or
broken (5xx), or the budget is spent; the answer stays unjudged. The candidate's text: the server refuses or filters
that prompt, it is too long, or the reply to it cannot be read, time after time, although the judge rules on the same
question when the reference stands in the candidate's place; that judge then votes against the text.
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
    """A judge's failure that the candidate's text causes."""

    failure: str


Rulings = Mapping[str, Ruling | Unjudgeable | str]
"""What each judge said, by its name; a text is why it said nothing."""


@dataclass(frozen=True)
class Opinion:
    """What a jury holds of one answer.

    Attributes:
        value: ``correct`` or ``incorrect``, a rating, or "" when there is none.
        reason: the judge's, or why there is no value.
        votes: each judge's value, or why it has none.
        is_final: whether asking again would change nothing.
        unjudgeable: name of the failure without which there would be no majority for the value.
    """

    value: str
    reason: str
    votes: dict[str, str]
    is_final: bool = True
    unjudgeable: str = ""


def is_transient(failure: str) -> bool:
    """Whether the same question may be answered another time: servers come back, what cannot be read stays so."""
    return failure_name(failure) in _MAY_PASS


def may_be_of_text(failure: str) -> bool:
    """Whether the candidate's text may be what makes a judge fail; the same question with the reference tells."""
    return failure_name(failure) in _MAY_BE_OF_TEXT


def majority(rulings: Rulings) -> Opinion:
    """More than half of all judges, so that one that fails never decides, unless the text makes it fail."""
    given = _votes_given(rulings, "incorrect")
    for value, count in Counter(ruling.value for ruling, _ in given).items():
        if 2 * count > len(rulings):
            return _of_majority(rulings, [vote for vote in given if vote[0].value == value])
    return _undecided(rulings)


def median_rating(rulings: Rulings) -> Opinion:
    """The middle one of the ratings, given by more than half of all judges."""
    given = sorted(_votes_given(rulings, "1"), key=lambda vote: int(vote[0].value))
    if 2 * len(given) > len(rulings):
        middle, failure = given[len(given) // 2]
        return Opinion(middle.value, middle.reason, _votes(rulings), unjudgeable=failure)
    return _undecided(rulings)


def _votes_given(rulings: Rulings, worst: str) -> list[tuple[Ruling, str]]:
    """The rulings, and with those that stand for a failure of the text its name; these last."""
    given = [(ruling, "") for ruling in rulings.values() if isinstance(ruling, Ruling)]
    failures = [ruling.failure for ruling in rulings.values() if isinstance(ruling, Unjudgeable)]
    return given + [(Ruling(worst, _UNJUDGEABLE.format(failure)), failure) for failure in failures]


def _of_majority(rulings: Rulings, votes: list[tuple[Ruling, str]]) -> Opinion:
    """What votes for one value say; the failure of the text counts where the rulings alone would not be enough."""
    (ruling, _), *_ = votes
    rulings_alone = sum(not failure for _, failure in votes)
    needed = next((failure for _, failure in votes if failure), "") if 2 * rulings_alone <= len(rulings) else ""
    return Opinion(ruling.value, ruling.reason, _votes(rulings), unjudgeable=needed)


def _undecided(rulings: Rulings) -> Opinion:
    failures = [ruling for ruling in rulings.values() if isinstance(ruling, str)]
    return Opinion(
        "", failures[0] if failures else _NO_MAJORITY, _votes(rulings), is_final=not any(map(is_transient, failures))
    )


def _votes(rulings: Rulings) -> dict[str, str]:
    return {name: _vote(ruling) for name, ruling in rulings.items()}


def _vote(ruling: Ruling | Unjudgeable | str) -> str:
    if isinstance(ruling, Unjudgeable):
        return f"unjudgeable: {ruling.failure}"
    return ruling.value if isinstance(ruling, Ruling) else ruling
