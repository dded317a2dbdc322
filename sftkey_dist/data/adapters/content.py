"""What the rows of a data set are turned into, and what is known of a published data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.config.answer_check import CheckName
from sftkey_dist.data.example import Turn

Row = Mapping[str, object]


@dataclass(frozen=True)
class Content:
    """A response in a row, and what comes before it; see `Example`.

    ``message`` is the number of the response among the messages of its conversation, from 1 on, if the row has several
    responses.
    """

    prompt: str
    values: Mapping[str, str]
    history: tuple[Turn, ...] = ()
    left_out: tuple[str, ...] = ()
    tool_turns: tuple[Turn, ...] = ()
    tools: tuple[Mapping[str, object], ...] = ()
    message: int | None = None


@dataclass(frozen=True)
class Unusable:
    """A response of a conversation that cannot be used, while other responses of the row can."""

    reason: str
    detail: str
    message: int | None = None


Adapt = Callable[[Row], Content]
"""Converts a row that contains one response."""
AdaptAll = Callable[[Row], Sequence[Content | Unusable]]
"""Converts a row that may contain several responses."""


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        adapt: converts a row to the segments `reasoning` and `answer`, or raises RowError.
        check: how answers are compared unless the configuration says otherwise.
        is_in_paper: whether the averages that the paper publishes include it.
    """

    adapt: Adapt
    check: CheckName = "exact"
    is_in_paper: bool = False
