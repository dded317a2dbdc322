"""Settings of generation and judging. This module loads no library that generates or judges."""

from dataclasses import dataclass

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.evaluation.generation.decoding import Decoding


@dataclass(frozen=True)
class EvaluationSettings:
    """How outputs are generated and judged, as plain values that can be sent to any machine.

    Attributes:
        form: form of the responses.
        contract: contract that the responses should keep.
        prompt: how prompts are written.
        settings: settings of generation and scoring.
        checks: the check of each key segment, by test set and segment.
        seed: seed of sampling.
        trust_remote_code: see `model.trust_remote_code`.
    """

    form: Form
    contract: ResponseContract
    prompt: PromptConfig
    settings: EvaluationConfig
    checks: dict[str, dict[str, AnswerCheck]]
    seed: int
    trust_remote_code: bool

    @property
    def decoding(self) -> Decoding:
        """How responses are decoded."""
        return Decoding.of(self.settings, self.contract, self.form, self.seed)
