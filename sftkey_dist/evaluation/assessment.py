"""How the outputs of a model are made and judged: settings alone, which load no library that makes or judges them."""

from dataclasses import dataclass

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.evaluation.generation.decoding import Decoding


@dataclass(frozen=True)
class Assessment:
    """How outputs are made and judged; plain values that travel to any machine.

    Attributes:
        form: of the responses.
        contract: that they are to keep.
        prompt: how prompts are written.
        settings: of generation and scoring.
        checks: for each test set the check of each key segment.
        seed: of samples.
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
        """How responses are drawn."""
        return Decoding.of(self.settings, self.contract, self.form, self.seed)
