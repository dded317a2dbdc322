"""From the rulings of several judges to one opinion; a ruling that is missing is the reason why."""

from collections import Counter
from dataclasses import dataclass

from sftkey_dist.endpoint import failure_name
from sftkey_dist.evaluation.judge.reading import Ruling

NOT_ASKED = "not_asked_after_failures"
_NO_MAJORITY = "no_majority"
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


@dataclass(frozen=True)
class Opinion:
    """What a jury holds of one answer.

    Attributes:
        value: ``correct`` or ``incorrect``, a rating, or "" when there is none.
        reason: the judge's, or why there is no value.
        votes: each judge's value, or why it has none.
        is_final: whether asking again would change nothing.
    """

    value: str
    reason: str
    votes: dict[str, str]
    is_final: bool = True


def is_transient(failure: str) -> bool:
    """Whether the same question may be answered another time: servers come back, what cannot be read stays so."""
    return failure_name(failure) in _MAY_PASS


def majority(rulings: dict[str, Ruling | str]) -> Opinion:
    """More than half of all judges, so that one that fails never decides."""
    given = [ruling for ruling in rulings.values() if isinstance(ruling, Ruling)]
    for value, count in Counter(ruling.value for ruling in given).items():
        if 2 * count > len(rulings):
            return Opinion(value, next(ruling.reason for ruling in given if ruling.value == value), _votes(rulings))
    return _undecided(rulings)


def median_rating(rulings: dict[str, Ruling | str]) -> Opinion:
    """The middle one of the ratings, given by more than half of all judges."""
    given = sorted((ruling for ruling in rulings.values() if isinstance(ruling, Ruling)), key=lambda r: int(r.value))
    if 2 * len(given) > len(rulings):
        return Opinion(given[len(given) // 2].value, given[len(given) // 2].reason, _votes(rulings))
    return _undecided(rulings)


def _undecided(rulings: dict[str, Ruling | str]) -> Opinion:
    failures = [ruling for ruling in rulings.values() if isinstance(ruling, str)]
    return Opinion(
        "", failures[0] if failures else _NO_MAJORITY, _votes(rulings), is_final=not any(map(is_transient, failures))
    )


def _votes(rulings: dict[str, Ruling | str]) -> dict[str, str]:
    return {name: ruling.value if isinstance(ruling, Ruling) else ruling for name, ruling in rulings.items()}
