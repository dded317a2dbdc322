"""Which of the sampled responses to training rows are trained: those that end, keep the contract and are right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.record import make_record
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord

ACCEPTED = "accepted"
ACCEPTANCE_VERSION = 1
"""Increase this number when other responses would be accepted."""

_OUTCOMES = {Verdict.CORRECT: ACCEPTED, Verdict.INCORRECT: "wrong_answer", Verdict.UNJUDGED: "unjudged"}


@dataclass(frozen=True)
class JudgedSamples:
    """What became of the samples of a row.

    Attributes:
        outcomes: of each sample, `accepted` or the reason why not: `truncated`, `broken_structure`, `wrong_answer`,
            `unjudged`, or the reason why the response cannot be encoded, such as `too_long`.
        chosen: the first accepted sample, encoded; None if there is none.
    """

    outcomes: tuple[str, ...]
    chosen: EncodedExample | None


def judge_samples(
    rows: Sequence[tuple[Example, Sequence[Generation]]], settings: EvaluationSettings, encoder: ExampleEncoder
) -> Iterator[JudgedSamples]:
    """Judge the samples of a batch of rows, in order.

    Args:
        rows: each row with its samples.
        settings: how outputs are judged; its checks are by ``data_set`` of the rows.
        encoder: encodes what is trained.
    """
    judged = [[_judged(example, sample, settings) for sample in samples] for example, samples in rows]
    right = [item for of_row in judged for item in of_row if isinstance(item, Example)]
    encoded = iter(encoder.encode(right))
    for of_row in judged:
        found = [next(encoded) if isinstance(item, Example) else item for item in of_row]
        outcomes = tuple(item if isinstance(item, str) else _outcome(item) for item in found)
        yield JudgedSamples(outcomes, next((item for item in found if isinstance(item, EncodedExample)), None))


def _judged(example: Example, sample: Generation, settings: EvaluationSettings) -> Example | str:
    """The row with a sample as its response, or why the sample is not accepted."""
    record = make_record(example, sample, settings)
    outcome = _outcome_of(record)
    return replace(example, values=record.segments) if outcome == ACCEPTED else outcome


def _outcome_of(record: EvaluationRecord) -> str:
    if record.truncated:
        return "truncated"
    return _OUTCOMES[record.verdict] if record.keeps_contract else "broken_structure"


def _outcome(encoded: EncodedExample | Refusal) -> str:
    return encoded.reason if isinstance(encoded, Refusal) else ACCEPTED
