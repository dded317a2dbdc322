"""Shares of the answers that follow the reasoning before them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sftkey_dist.evaluation.statistics import Interval, wilson_interval
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.kinds import Measured
from sftkey_dist.run_dir.artifacts.swapped import Outcome, Reasoning, SwappedReasoning, SwapRecord


@dataclass(frozen=True)
class SwapShare:
    """A share of answers: how many of ``n`` that were judged, nan without any, and its 95 % interval (Wilson)."""

    n: int
    value: Measured
    interval: Interval


@dataclass(frozen=True)
class SwapShares:
    """What the answers of a model follow.

    Attributes:
        right: after the question's own reference reasoning, answers that are right.
        follows: after a donor's reference reasoning, answers that are the donor's reference answer.
        keeps: likewise, answers that are the reference answer to the question in the prompt.
        neither: likewise, answers that are neither, or that the checks take for both.
        carries: after the reasoning that the model had generated for the donor, answers that are the one that it had
            given to the donor.
        num_donors: number of distinct donors.
        unjudged: number of answers that the checks could not judge, by the reasoning before them. No share counts them.
        left_out: number of questions that were passed over, by reason.
        without_generated: number of questions that ``carries`` lacks, by reason.
    """

    right: SwapShare
    follows: SwapShare
    keeps: SwapShare
    neither: SwapShare
    carries: SwapShare
    num_donors: int
    unjudged: dict[str, int]
    left_out: dict[str, int]
    without_generated: dict[str, int]

    @classmethod
    def of(cls, found: SwappedReasoning) -> "SwapShares":
        """The shares of an evaluation's records."""
        unjudged = Counter(reasoning for record in found.records for reasoning in _unjudged(record))
        return cls(
            **{name: _share([counts(record) for record in found.records]) for name, counts in SWAP_MEASURES.items()},
            num_donors=len({(record.data_set, record.donor) for record in found.records}),
            unjudged={reasoning.value: unjudged[reasoning] for reasoning in Reasoning if unjudged[reasoning]},
            left_out=found.left_out,
            without_generated=found.without_generated,
        )

    @property
    def by_name(self) -> dict[str, SwapShare]:
        """The shares in the order of `SWAP_MEASURES`."""
        return {name: getattr(self, name) for name in SWAP_MEASURES}


def _unjudged(record: SwapRecord) -> Iterator[Reasoning]:
    """The reasonings after which an answer was not judged."""
    if record.own_verdict is Verdict.UNJUDGED:
        yield Reasoning.OWN
    if record.outcome is Outcome.UNJUDGED:
        yield Reasoning.DONOR
    if record.generated_outcome is Outcome.UNJUDGED:
        yield Reasoning.GENERATED


def _is_outcome(wanted: Outcome) -> Callable[[SwapRecord], bool | None]:
    return lambda record: None if record.outcome is Outcome.UNJUDGED else record.outcome is wanted


def _is_right(record: SwapRecord) -> bool | None:
    return None if record.own_verdict is Verdict.UNJUDGED else record.own_verdict is Verdict.CORRECT


def _is_carried(record: SwapRecord) -> bool | None:
    is_open = record.generated_outcome in (None, Outcome.UNJUDGED)
    return None if is_open else record.generated_outcome is Outcome.FOLLOWS


SWAP_MEASURES: dict[str, Callable[[SwapRecord], bool | None]] = {
    "right": _is_right,
    "follows": _is_outcome(Outcome.FOLLOWS),
    "keeps": _is_outcome(Outcome.KEEPS),
    "neither": _is_outcome(Outcome.NEITHER),
    "carries": _is_carried,
}
"""Whether a share counts a record; None if it was not judged."""


def _share(counts: Sequence[bool | None]) -> SwapShare:
    judged = [each for each in counts if each is not None]
    value = sum(judged) / len(judged) if judged else float("nan")
    return SwapShare(len(judged), value, wilson_interval(sum(judged), len(judged)))
