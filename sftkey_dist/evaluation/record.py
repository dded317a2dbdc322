"""Evaluation records of generated texts: the answer, checks, judges' verdicts, and whether the contract is kept."""

from collections.abc import Mapping, Sequence
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
    first_same,
    judged_by_check,
    make_check,
)
from sftkey_dist.evaluation.conversation import conversation_of
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.judge.template import Question
from sftkey_dist.evaluation.judge.voting import JuryResult
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.verdict import Judgement, Verdict, all_of
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord, JudgedAnswer


def make_records(
    example: Example, generations: Sequence[Generation], settings: EvaluationSettings
) -> list[EvaluationRecord]:
    """The evaluation records of all outputs for an example. Of several, each notes the first with the same answer."""
    records = [make_record(example, generation, settings, sample) for sample, generation in enumerate(generations)]
    if len(records) < 2:
        return records
    checks = settings.checks[example.data_set]
    by_segment = [
        first_same(_cached_check(checks[name]), [record.answer[name] for record in records], example.prompt)
        for name in records[0].answer
    ]
    answers = list(zip(*by_segment, strict=True))
    return [
        replace(record, same_answer_as=answers.index(answer)) for record, answer in zip(records, answers, strict=True)
    ]


def make_record(
    example: Example, generation: Generation, settings: EvaluationSettings, sample: int = 0
) -> EvaluationRecord:
    """The evaluation record of one output, judged by the deterministic checks alone."""
    parsed = settings.contract.parse(generation.text, settings.form)
    answers = {
        s.name: find_answer(generation.text, settings.contract, settings.form, s.name)
        for s in settings.contract.key_segments
    }
    return decided(
        EvaluationRecord(
            id=example.id,
            data_set=example.data_set,
            sample=sample,
            prompt=example.prompt,
            history=example.history,
            tool_turns=example.tool_turns or None,
            output=generation.text,
            reference={s.name: example.values.get(s.name, "") for s in settings.contract.segments},
            answer={name: found.text for name, found in answers.items()},
            answer_source={name: found.source for name, found in answers.items()},
            segments=dict(parsed.values),
            checks=_checked(example, answers, settings),
            keeps_contract=parsed.keeps_contract,
            violation=parsed.violation.value if parsed.violation else None,
            violation_detail=parsed.detail,
            num_tokens=generation.num_tokens,
            truncated=generation.truncated,
        )
    )


def verdict_on_reference(example: Example, other: Example, settings: EvaluationSettings) -> Verdict:
    """The checks' verdict on the reference answer of another example as an answer to this one."""
    answers = {
        segment.name: FoundAnswer(other.values.get(segment.name, "").strip(), "strict")
        for segment in settings.contract.key_segments
    }
    return all_of(_checked(example, answers, settings).values()).verdict


def questions_of(record: EvaluationRecord, skip_certain: bool) -> dict[str, Question]:
    """The questions to judges about a record, by key segment.

    Judges are not asked about an answer that is empty or not expected. With ``skip_certain`` they are not asked about
    answers of which the check is certain either.
    """
    return {
        name: Question(conversation_of(record), record.reference[name], answer)
        for name, answer in record.answer.items()
        if answer.strip() and record.reference[name].strip() and not (skip_certain and record.checks[name].certain)
    }


def with_jury_results(
    record: EvaluationRecord, results: Mapping[str, JuryResult], decides: bool = True
) -> EvaluationRecord:
    """The record with the jury's results on its answers, and whether these decide the verdict."""
    judged = {name: _judged(result) for name, result in results.items()}
    return decided(replace(record, judged=judged, judge_decides=decides))


def with_labels(record: EvaluationRecord, labels: Mapping[str, Verdict]) -> EvaluationRecord:
    """The record with human labels, which overrule all other verdicts."""
    return decided(replace(record, labels=dict(labels)))


def decided(record: EvaluationRecord) -> EvaluationRecord:
    """The record with a verdict for each key segment and an overall one.

    A human label takes precedence over the judges, and the judges over the checks. Judges that do not decide are
    ignored.
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


def _judged(result: JuryResult) -> JudgedAnswer:
    return JudgedAnswer(
        verdict=Verdict(result.value or Verdict.UNJUDGED),
        reason=result.reason,
        unjudgeable=result.unjudgeable,
        votes=result.votes,
        is_final=result.is_final,
    )


def _checked(
    example: Example, answers: Mapping[str, FoundAnswer], settings: EvaluationSettings
) -> dict[str, Judgement]:
    """The check's judgement on the answer of each key segment."""
    checks = settings.checks[example.data_set]
    return {
        name: _check_segment(found, example.values.get(name, ""), example.prompt, checks[name])
        for name, found in answers.items()
    }


def _check_segment(found: FoundAnswer, reference: str, question: str, check: AnswerCheck) -> Judgement:
    """The check's judgement. An optional segment that the reference lacks must be absent from the output too."""
    if not reference.strip():
        is_absent = not found.text or found.source == "whole"
        return Judgement.of(is_absent, "" if is_absent else "not expected", certain=True)
    return judged_by_check(_cached_check(check), Case(found.text, reference, question))


@lru_cache(maxsize=64)
def _cached_check(check: AnswerCheck) -> Check[Any] | FunctionOfUsers:
    return make_check(check)
