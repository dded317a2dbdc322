"""The beginnings of responses that a model continues, and what its answers to them agree with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sftkey_dist.contract import ContractError, Piece
from sftkey_dist.data.example import Example
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.record import make_record
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.swapped.pairing import Pair, problem_with_pair, problem_with_reasoning
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.swapped import ContinuationKey, Outcome, Reasoning

VERSION = 1
"""Increase this number when the same questions would be paired, continued or scored differently."""

BROKEN_FORMAT = "broken_format"


@dataclass(frozen=True)
class Beginning:
    """The prompt of a question with the reasoning of a source, which the model continues.

    Attributes:
        reasoning: which reasoning it is.
        question: the question, with the answer that belongs to it.
        source: what the reasoning was written for, with the answer that belongs to that.
        donor: id of the question's donor.
        digest: digest of the source's response, and of its beginning.
    """

    reasoning: Reasoning
    question: Example
    source: Example
    donor: str
    digest: str

    @classmethod
    def of(
        cls, reasoning: Reasoning, question: Example, source: Example, donor: str, settings: EvaluationSettings
    ) -> "Beginning":
        """The beginning that the contract and the form of an evaluation give."""
        try:
            begun: list[str] | str = [piece.text for piece in _begun(source, settings)]
        except ContractError as error:
            begun = error.reason  # encoding refuses it, too
        digest = digest_json([VERSION, begun, sorted(source.values.items())])[:16]
        return cls(reasoning, question, source, donor, digest)

    @property
    def key(self) -> ContinuationKey:
        """What is continued, also if a reference or the contract changes later."""
        return self.question.data_set, self.question.id, self.donor, self.reasoning, self.digest

    @property
    def example(self) -> Example:
        """The question with the response whose beginning is continued."""
        return replace(self.question, values=self.source.values)

    def verdict(self, continuation: Generation, settings: EvaluationSettings) -> Verdict:
        """Whether the answer is the one that belongs to the question."""
        return make_record(self.question, self._whole(continuation, settings), settings).verdict

    def outcome(self, continuation: Generation, settings: EvaluationSettings) -> Outcome:
        """Which of the two answers it is. One that the checks take for both agrees with neither."""
        whole = self._whole(continuation, settings)
        follows, keeps = (make_record(of, whole, settings).verdict for of in (self.source, self.question))
        if Verdict.UNJUDGED in (follows, keeps):
            return Outcome.UNJUDGED
        if follows == keeps:
            return Outcome.NEITHER
        return Outcome.FOLLOWS if follows is Verdict.CORRECT else Outcome.KEEPS

    def _whole(self, continuation: Generation, settings: EvaluationSettings) -> Generation:
        begun = "".join(piece.text for piece in _begun(self.source, settings))
        return replace(continuation, text=begun + continuation.text)


def with_references(pair: Pair, settings: EvaluationSettings) -> tuple[Beginning, Beginning]:
    """The question with its own reference reasoning, and with its donor's."""
    question, donor = pair.question, pair.donor
    own = Beginning.of(Reasoning.OWN, question, question, donor.id, settings)
    return own, Beginning.of(Reasoning.DONOR, question, donor, donor.id, settings)


def with_generated(pair: Pair, outputs: Mapping[tuple[str, str], str], settings: EvaluationSettings) -> Beginning | str:
    """The question with the reasoning that the model generated for the donor, or why that would tell nothing.

    Args:
        pair: the question and its donor.
        outputs: the model's output by test set and id, whose answers take the place of references.
        settings: the contract, the form and the checks.
    """
    answered = []
    for example in (pair.question, pair.donor):
        parsed = settings.contract.parse(outputs[example.data_set, example.id], settings.form)
        if not parsed.keeps_contract:
            return BROKEN_FORMAT
        answered.append(replace(example, values=parsed.values))
    question, donor = answered
    problem = problem_with_reasoning(donor, settings.contract) or problem_with_pair(question, donor, settings)
    return problem or Beginning.of(Reasoning.GENERATED, question, donor, pair.donor.id, settings)


def _begun(source: Example, settings: EvaluationSettings) -> list[Piece]:
    """The response of an example up to where the text of its first key segment begins.

    Raises:
        ContractError: the response cannot be written under the contract.
    """
    pieces = settings.contract.render(source.values, settings.form)
    return pieces[: settings.contract.num_before_key([piece.segment for piece in pieces])]
