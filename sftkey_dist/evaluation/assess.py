"""From a generated text to a record: answer, verdict, contract."""

from dataclasses import dataclass
from typing import Any

from sftkey_dist.config.schema import EvaluationConfig, PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.answers import ANSWER_CHECKS, Judgement, Verdict, find_answer
from sftkey_dist.evaluation.generate import Generation


@dataclass(frozen=True)
class Assessment:
    """How outputs are made and judged; plain values that travel to any machine."""

    form: Form
    contract: ResponseContract
    prompt: PromptConfig
    settings: EvaluationConfig
    trust_remote_code: bool


def make_record(example: Example, generation: Generation, assessment: Assessment) -> dict[str, Any]:
    """What an evaluation says of one example."""
    parsed = assessment.contract.parse(generation.text, assessment.form)
    answers = {
        s.name: find_answer(generation.text, assessment.contract, assessment.form, s.name)
        for s in assessment.contract.key_segments
    }
    judgement = _judge({name: found.text for name, found in answers.items()}, example, assessment)
    return {
        "id": example.id,
        "prompt": example.prompt,
        "output": generation.text,
        "reference": {name: example.values.get(name, "") for name in answers},
        "answer": {name: found.text for name, found in answers.items()},
        "answer_source": {name: found.source for name, found in answers.items()},
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "keeps_contract": parsed.keeps_contract,
        "violation": parsed.violation.value if parsed.violation else None,
        "violation_detail": parsed.detail,
        "num_tokens": generation.num_tokens,
        "truncated": generation.truncated,
    }


def _judge(answers: dict[str, str], example: Example, assessment: Assessment) -> Judgement:
    """Correct when every key segment is; the first other verdict decides otherwise."""
    judgements = [_judge_segment(answer, example.values.get(name, ""), assessment) for name, answer in answers.items()]
    return next((j for j in judgements if j.verdict is not Verdict.CORRECT), judgements[0])


def _judge_segment(answer: str, reference: str, assessment: Assessment) -> Judgement:
    """An optional segment that the reference does not have must not be there."""
    if not reference.strip():
        return Judgement(Verdict.INCORRECT, "not expected") if answer else Judgement(Verdict.CORRECT)
    return ANSWER_CHECKS[assessment.settings.answer_check](answer, reference)
