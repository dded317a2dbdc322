"""What the rows of a data set are turned into, and what is known of a published data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sftkey_dist.config.answer_check import CheckName
from sftkey_dist.data.example import Turn

Row = Mapping[str, object]


@dataclass(frozen=True)
class Content:
    """The content of a row: a prompt, the text of each segment, earlier turns, and the kinds of text that were left
    out."""

    prompt: str
    values: Mapping[str, str]
    history: tuple[Turn, ...] = ()
    left_out: tuple[str, ...] = ()


Adapt = Callable[[Row], Content]


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
