"""From a generated text to a record: answer, deterministic checks, judges, contract."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.answers import (
    Case,
    Check,
    FoundAnswer,
    FunctionOfUsers,
    find_answer,
    judged_by_check,
    make_check,
)
from sftkey_dist.evaluation.assessment import Assessment
from sftkey_dist.evaluation.conversation import conversation_of
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.judge.opinion import Opinion
from sftkey_dist.evaluation.judge.template import Question
from sftkey_dist.evaluation.verdict import Judgement, Verdict, all_of
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord, JudgedAnswer


def make_record(example: Example, generation: Generation, assessment: Assessment, sample: int = 0) -> EvaluationRecord:
    """What an evaluation says of one output, by the deterministic checks alone."""
    parsed = assessment.contract.parse(generation.text, assessment.form)
    answers = {
        s.name: find_answer(generation.text, assessment.contract, assessment.form, s.name)
        for s in assessment.contract.key_segments
    }
    checks = assessment.checks[example.data_set]
    judgements = {
        name: _check_segment(found, example.values.get(name, ""), example.prompt, checks[name])
        for name, found in answers.items()
    }
    return decided(
        EvaluationRecord(
            id=example.id,
            data_set=example.data_set,
            sample=sample,
            prompt=example.prompt,
            history=example.history,
            output=generation.text,
            reference={s.name: example.values.get(s.name, "") for s in assessment.contract.segments},
            answer={name: found.text for name, found in answers.items()},
            answer_source={name: found.source for name, found in answers.items()},
            segments=dict(parsed.values),
            checks=judgements,
            keeps_contract=parsed.keeps_contract,
            violation=parsed.violation.value if parsed.violation else None,
            violation_detail=parsed.detail,
            num_tokens=generation.num_tokens,
            truncated=generation.truncated,
        )
    )


def questions_of(record: EvaluationRecord, skip_certain: bool) -> dict[str, Question]:
    """What a judge is to be asked about a record, by key segment.

    An answer that is empty, or not expected, needs no judge; nor, if so asked, one that the check is certain of.
    """
    return {
        name: Question(conversation_of(record), record.reference[name], answer)
        for name, answer in record.answer.items()
        if answer.strip() and record.reference[name].strip() and not (skip_certain and record.checks[name].certain)
    }


def with_opinions(record: EvaluationRecord, opinions: Mapping[str, Opinion], decides: bool = True) -> EvaluationRecord:
    """The record with what judges hold of its answers, and whether that decides."""
    judged = {name: _judged(opinion) for name, opinion in opinions.items()}
    return decided(replace(record, judged=judged, judge_decides=decides))


def with_labels(record: EvaluationRecord, labels: Mapping[str, Verdict]) -> EvaluationRecord:
    """The record with a person's verdicts, which overrule the others."""
    return decided(replace(record, labels=dict(labels)))


def decided(record: EvaluationRecord) -> EvaluationRecord:
    """The record with a verdict for each key segment and for all: a person's, else the judges', else the checks'.

    Judges that do not decide are passed over.
    """
    fields = {name: _decide(record, name) for name in record.answer}
    overall = all_of(fields.values())
    return replace(
        record,
        fields={name: judgement.verdict for name, judgement in fields.items()},
        verdict=overall.verdict,
        reason=overall.reason,
        unjudgeable=overall.unjudgeable,
    )


def _decide(record: EvaluationRecord, name: str) -> Judgement:
    if name in record.labels:
        return Judgement(record.labels[name], "labelled by a person", certain=True)
    judged = record.judged.get(name) if record.judge_decides else None
    found = judged or record.checks[name]
    return Judgement(found.verdict, found.reason, unjudgeable=found.unjudgeable)


def _judged(opinion: Opinion) -> JudgedAnswer:
    return JudgedAnswer(
        verdict=Verdict(opinion.value or Verdict.UNJUDGED),
        reason=opinion.reason,
        unjudgeable=opinion.unjudgeable,
        votes=opinion.votes,
        is_final=opinion.is_final,
    )


def _check_segment(found: FoundAnswer, reference: str, question: str, check: AnswerCheck) -> Judgement:
    """An optional segment that the reference does not have must not be there."""
    if not reference.strip():
        is_absent = not found.text or found.source == "whole"
        return Judgement.of(is_absent, "" if is_absent else "not expected", certain=True)
    return judged_by_check(_cached_check(check), Case(found.text, reference, question))


@lru_cache(maxsize=64)
def _cached_check(check: AnswerCheck) -> Check[Any] | FunctionOfUsers:
    return make_check(check)
