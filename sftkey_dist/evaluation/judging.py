"""Turns generations into verdicts and scores, with checks, judges and human labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sftkey_dist.config.answer_check import without_folders
from sftkey_dist.config.evaluation import JudgeConfig
from sftkey_dist.data.example import Example
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import DataError, IncompleteEvaluationError
from sftkey_dist.evaluation.agreement import JUDGE_AND_CHECK
from sftkey_dist.evaluation.conversation import conversation_of
from sftkey_dist.evaluation.generation.fan_out import Progress, read_generations
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.judge.jury import Jury, JuryUse
from sftkey_dist.evaluation.judge.template import Question, load_template
from sftkey_dist.evaluation.judge.voting import JuryResult
from sftkey_dist.evaluation.record import make_records, questions_of, with_jury_results
from sftkey_dist.evaluation.review import (
    Key,
    agreement_of_judge,
    agreements_with_person,
    labelled,
    read_labels,
    write_review,
)
from sftkey_dist.evaluation.score import macro_average, score_by_data_set, score_records
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.files import flush
from sftkey_dist.run_dir import EvaluationDir
from sftkey_dist.run_dir.artifacts.evaluation import (
    RECORDS,
    SCORES,
    SCORING_STATE,
    Agreement,
    EvaluationRecord,
    EvaluationScores,
    JudgeUse,
    Scores,
)

SCORING_VERSION = 8
"""Increase this number when the same generation would be judged or parsed differently."""


def judge_and_score(
    job: EvaluationJob, examples: Sequence[Example], folder: Path, jury: Jury | None, progress: Progress
) -> Scores:
    """Judge all generations of a folder and write the records, the scores and the review file.

    Args:
        job: the evaluation job whose outputs were generated.
        examples: the test set.
        folder: folder of the generations.
        jury: the jury to ask, if the configuration has one.
        progress: called with the number of answers that the jury has judged.

    Raises:
        DataError: none of the answers could be judged, or a label cannot be read.
        IncompleteEvaluationError: judges did not answer every question. Their rulings so far are kept, and the scores
            state what is open.
    """
    generations = read_generations(folder)
    records = [
        record
        for example in examples
        for record in make_records(example, generations[example.data_set, example.id], job)
    ]
    uses: dict[str, JuryUse] = {}
    if jury is not None and job.settings.judge is not None:
        records, uses = _heard(records, jury, job.settings.judge, progress)
    labels = read_labels(EvaluationDir(folder).review)
    records = labelled(records, labels)
    RECORDS.write(EvaluationDir(folder).records, records)
    to_review = write_review(EvaluationDir(folder).review, records)
    scores = score_records(records, job.settings.alpha)
    is_open = _is_open(records)
    if scores.unjudged == scores.n and jury is None:
        raise DataError(
            f"none of the answers in {folder.name} could be judged: {records[0].reason}; choose another "
            f"evaluation.answer_check, or configure a judge"
        )
    by_data_set = score_by_data_set(records, job.settings.alpha)
    found = EvaluationScores(
        **vars(scores),
        data_sets=by_data_set,
        macro_average=macro_average(by_data_set),
        agreement=_agreements(records),
        to_review=to_review,
        judges={name: JudgeUse(**use.to_json()) for name, use in uses.items()},
        is_complete=not is_open,
        scoring_digest=scoring_digest(job, examples, labels),
        guided=job.settings.guided or None,
    )
    flush(EvaluationDir(folder).generations)  # scores that outlive a lost node have their generations
    SCORES.write(EvaluationDir(folder).scores, found)
    if is_open:
        what = ", ".join(f"{reason}: {count}" for reason, count in scores.unjudged_reasons.items())
        said = {name: message for use in uses.values() for name, message in use.messages.items()}
        words = "".join(f"; {name}: {message}" for name, message in said.items())
        raise IncompleteEvaluationError(
            f"{job.strategy}: {is_open} answers are not judged yet ({what}){words}; the verdicts received so far are "
            f"kept: run the same command again to get the rest"
        )
    return scores


def is_scored(job: EvaluationJob, examples: Sequence[Example], folder: Path) -> bool:
    """Whether a folder holds complete scores that match the job."""
    file = EvaluationDir(folder).scores
    if not file.is_file():
        return False
    state = SCORING_STATE.read(file)
    labels = read_labels(EvaluationDir(folder).review)
    return state.is_complete and state.scoring_digest == scoring_digest(job, examples, labels)


def scoring_digest(job: EvaluationJob, examples: Sequence[Example], labels: Mapping[Key, Verdict]) -> str:
    """Digest of everything that turns generations into scores, with the labels of people."""
    judge = job.settings.judge
    return digest_json(
        {
            **inputs_of_checks(job, examples),
            "judge": _judge_inputs(judge) if judge else None,
            "labels": sorted(labels.items()),
            "alpha": job.settings.alpha,
        }
    )


def inputs_of_checks(job: EvaluationJob, examples: Sequence[Example]) -> dict[str, object]:
    """What the checks' verdicts on generations depend on, as plain values."""
    return {
        "version": SCORING_VERSION,
        "form": job.form,
        "contract": job.contract.model_dump(mode="json"),
        "checks": without_folders(json.loads(json.dumps(job.checks, default=lambda check: check.model_dump()))),
        "references": [(example.id, example.data_set, sorted(example.values.items())) for example in examples],
    }


def _judge_inputs(judge: JudgeConfig) -> object:
    templates = [load_template(name).digest for name in (judge.template, judge.rubric) if name]
    return [judge.model_dump(mode="json", exclude={"cache_dir", "template", "rubric"}), templates]


def _heard(
    records: Sequence[EvaluationRecord], jury: Jury, settings: JudgeConfig, progress: Progress
) -> tuple[list[EvaluationRecord], dict[str, JuryUse]]:
    """The records with the jury's results on answers and, if there is a rubric, its ratings of explanations."""
    asked = [questions_of(record, settings.skip_certain) for record in records]
    flat = [question for questions in asked for question in questions.values()]
    results, use = jury.judge(flat, progress)
    remaining = iter(results)
    heard = [
        with_jury_results(record, {name: next(remaining) for name in questions}, settings.decides)
        for record, questions in zip(records, asked, strict=True)
    ]
    if settings.rubric is None:
        return heard, {"answers": use}
    ratings, rating_use = jury.rate([_explanation(record) for record in records], progress)
    rated = [_with_rating(record, rating) for record, rating in zip(heard, ratings, strict=True)]
    return rated, {"answers": use, "explanations": rating_use}


def _explanation(record: EvaluationRecord) -> Question:
    """The text of the segments that are not key segments, or the whole output if it breaks the contract."""
    keys = record.answer.keys()
    written = {name: text for name, text in record.segments.items() if name not in keys}
    wanted = {name: text for name, text in record.reference.items() if text and name not in keys}
    reference = "\n".join(wanted.values()) or "\n".join(record.reference.values())
    return Question(conversation_of(record), reference, "\n".join(written.values()) or record.output)


def _with_rating(record: EvaluationRecord, result: JuryResult) -> EvaluationRecord:
    return replace(
        record,
        explanation_rating=int(result.value) if result.value else None,
        explanation_reason=result.reason,
        explanation_is_open=not (result.value or result.is_final),
    )


def _is_open(records: Sequence[EvaluationRecord]) -> int:
    """Number of answers and explanations that were not judged for a transient reason."""
    answers = sum(
        not found.is_final and name not in record.labels for record in records for name, found in record.judged.items()
    )
    return answers + sum(bool(record.explanation_is_open) for record in records)


def _agreements(records: Sequence[EvaluationRecord]) -> dict[str, Agreement]:
    found = agreement_of_judge(records)
    with_person = agreements_with_person(records)
    return ({JUDGE_AND_CHECK: found} if found else {}) | {
        f"{rater}_and_person": agreement for rater, agreement in with_person.items()
    }
