"""The files of the measurement with swapped reasoning: what models wrote, and what their answers follow."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sftkey_dist.evaluation.generation.decoding import Generation
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile, absent_with


class Reasoning(StrEnum):
    """The reasoning that stands after the prompt of a question and before the answer."""

    OWN = "own"
    """The question's reference reasoning."""
    DONOR = "donor"
    """The donor's reference reasoning."""
    GENERATED = "generated"
    """The reasoning that the model itself generated for the donor."""


class Outcome(StrEnum):
    """What an answer agrees with."""

    FOLLOWS = "follows"
    """The answer that belongs to the reasoning before it."""
    KEEPS = "keeps"
    """The answer that belongs to the question in the prompt."""
    NEITHER = "neither"
    """Another answer, or one that the checks take for both."""
    UNJUDGED = "unjudged"
    """The checks cannot tell."""


ContinuationKey = tuple[str, str, str, Reasoning, str]
"""Test set, question, donor, kind of reasoning, and digest of the response that it is from and of its beginning."""


@dataclass(frozen=True)
class ContinuationRecord:
    """A line of swapped_reasoning.jsonl: how a model continued a begun response.

    Attributes:
        data_set: name of the test set.
        id: id of the question in the prompt.
        donor: id of the question that the other reasoning belongs to.
        reasoning: which reasoning stands before the answer.
        digest: digest of the response that the reasoning is from, and of its beginning.
        generation: what the model wrote after it; None if the beginning could not be encoded, or is too long.
        refusal: the reason of that; "" if there is a generation.
    """

    data_set: str
    id: str
    donor: str
    reasoning: Reasoning
    digest: str
    generation: Generation | None
    refusal: str = ""

    @property
    def key(self) -> ContinuationKey:
        """What was continued."""
        return self.data_set, self.id, self.donor, self.reasoning, self.digest

    @property
    def answer(self) -> Generation | str:
        """What the model wrote, or the reason why it was not asked."""
        return self.refusal if self.generation is None else self.generation


@dataclass(frozen=True)
class SwapRecord:
    """A question with the reasoning of its donor.

    Attributes:
        data_set: name of the test set.
        id: id of the question.
        donor: id of the donor.
        own_text: what the model wrote after the question's own reference reasoning.
        own_verdict: whether that is the reference answer.
        swapped_text: what it wrote after the donor's reference reasoning.
        outcome: what that answer agrees with, of the two references.
        generated_text: what it wrote after the reasoning that it had generated for the donor; None if that was not
            asked.
        generated_outcome: what that answer agrees with, of the two answers that the model had generated.
    """

    data_set: str
    id: str
    donor: str
    own_text: str
    own_verdict: Verdict
    swapped_text: str
    outcome: Outcome
    generated_text: str | None = field(default=None, metadata=absent_with("generated_text"))
    generated_outcome: Outcome | None = field(default=None, metadata=absent_with("generated_text"))


@dataclass(frozen=True)
class SwappedReasoning:
    """swapped_reasoning.json: the questions of an evaluation that were answered with another reasoning.

    Attributes:
        digest: digest of everything that the records depend on.
        records: a record for each question.
        left_out: number of questions that were passed over, by reason.
        without_generated: number of records without an answer to the model's own reasoning, by reason.
    """

    digest: str
    records: tuple[SwapRecord, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    without_generated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SwapState:
    """swapped_reasoning.json, restricted to what tells whether it is up to date."""

    digest: str = ""


_MEASURED_AGAIN = "remove it and evaluate again"

CONTINUATIONS = Journal(ContinuationRecord, _MEASURED_AGAIN)
SWAPPED, SWAP_STATE = JsonFile(SwappedReasoning, _MEASURED_AGAIN), JsonFile(SwapState, _MEASURED_AGAIN)


def read_swapped(run: Path, name: str | None) -> SwappedReasoning | None:
    """The measurement in the file of a run that a strategy's entry names; None if it names none, or one that is gone.

    Raises:
        DataError: the file is damaged.
    """
    return SWAPPED.read(run / name) if name and (run / name).is_file() else None
