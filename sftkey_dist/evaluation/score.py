"""Accuracy, format and their composite with confidence intervals, computed from records alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from sftkey_dist.evaluation.statistics import Estimate, pass_at_k, share_of_clusters, weighted_sum
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord, MacroAverage, Scores, composite

Records = Sequence[EvaluationRecord]
Question = tuple[str, str, str]
"""Test set, id and prompt. The same id with another prompt is another question."""


def score_records(records: Records, alpha: float) -> Scores:
    """Score evaluation records."""
    if not records:
        raise ValueError("there are no records to score")
    verdicts = Counter(record.verdict for record in records)
    correct, unjudged = verdicts[Verdict.CORRECT], verdicts[Verdict.UNJUDGED]
    n, judged = len(records), len(records) - unjudged
    kept = sum(record.keeps_contract for record in records)
    strict = sum(record.verdict == Verdict.CORRECT and record.keeps_contract for record in records)
    accuracy = correct / judged if judged else math.nan
    measures = measures_of(*outcome_sums(records)[1:], alpha)
    questions = _by_question(records)
    has_samples = len(questions) < n
    ratings = [record.explanation_rating for record in records if record.explanation_rating]
    return Scores(
        n=n,
        accuracy=accuracy,
        accuracy_bounds=(correct / n, (correct + unjudged) / n),
        format=kept / n,
        parser_success=sum(map(_has_found_answer, records)) / n,
        score=composite(accuracy, kept / n, alpha),
        strict_score=composite(strict / judged if judged else math.nan, kept / n, alpha),
        alpha=alpha,
        unjudged=unjudged,
        unjudged_reasons=dict(Counter(r.reason for r in records if r.verdict == Verdict.UNJUDGED)),
        truncated=sum(record.truncated for record in records),
        violations=dict(Counter(record.violation for record in records if record.violation)),
        accuracy_interval=measures.accuracy.interval,
        format_interval=measures.format.interval,
        score_interval=measures.score.interval if judged or not alpha else (0.0, 1.0),
        fields=_field_accuracies(records),
        pass_at_k=_pass_at_k(questions) if has_samples else {},
        majority_accuracy=_majority_accuracy(questions) if has_samples else None,
        explanation_rating=sum(ratings) / len(ratings) if ratings else None,
        unjudgeable=dict(Counter(r.unjudgeable for r in records if r.unjudgeable)),
    )


def score_by_data_set(records: Records, alpha: float) -> dict[str, Scores]:
    """The scores of each test set."""
    names = dict.fromkeys(record.data_set for record in records)
    return {name: score_records([r for r in records if r.data_set == name], alpha) for name in names}


def macro_average(by_data_set: Mapping[str, Scores]) -> MacroAverage:
    """Unweighted means over the test sets, as the paper reports them."""
    scores = by_data_set.values()
    return MacroAverage(
        accuracy=float(np.mean([of_one.accuracy for of_one in scores])),
        format=float(np.mean([of_one.format for of_one in scores])),
        score=float(np.mean([of_one.score for of_one in scores])),
        strict_score=float(np.mean([of_one.strict_score for of_one in scores])),
    )


class Measures(NamedTuple):
    """Accuracy, format and score with their intervals."""

    accuracy: Estimate
    format: Estimate
    score: Estimate


def measures_of(sums: np.ndarray, counts: np.ndarray, alpha: float) -> Measures:
    """The measures of the counts that `outcome_sums` returns."""
    accuracy, form = (share_of_clusters(sums[:, i], counts[:, i]) for i in (0, 1))
    return Measures(accuracy, form, weighted_sum(accuracy, alpha, form, 1 - alpha))


def outcome_sums(records: Records) -> tuple[list[Question], np.ndarray, np.ndarray]:
    """The keys of the N questions, their counts (correct, kept) [N, 2], and their counts (judged, outputs) [N, 2]."""
    questions = _by_question(records)
    sums = np.array(
        [
            [sum(r.verdict == Verdict.CORRECT for r in of_one), sum(r.keeps_contract for r in of_one)]
            for of_one in questions.values()
        ],
        dtype=float,
    )
    counts = np.array(
        [[sum(r.verdict != Verdict.UNJUDGED for r in of_one), len(of_one)] for of_one in questions.values()],
        dtype=float,
    )
    return list(questions), sums, counts


def _by_question(records: Records) -> dict[Question, list[EvaluationRecord]]:
    """The samples of each question."""
    ids = [(record.data_set, record.id, record.prompt) for record in records]
    ordered = sorted(zip(ids, range(len(records)), strict=True), key=lambda pair: (str(pair[0]), pair[1]))
    return {key: [records[i] for _, i in group] for key, group in groupby(ordered, key=lambda pair: pair[0])}


def expected_sources(record: EvaluationRecord) -> list[str]:
    """Where the answers were found that the reference has; an optional segment may be absent from it."""
    return [source for name, source in record.answer_source.items() if record.reference.get(name, "x").strip()]


def _has_found_answer(record: EvaluationRecord) -> bool:
    return all(source != "whole" for source in expected_sources(record))


def _field_accuracies(records: Records) -> dict[str, float]:
    names = dict.fromkeys(name for record in records for name in record.fields)
    accuracies = {}
    for name in names:
        verdicts = Counter(record.fields[name] for record in records)
        judged = verdicts[Verdict.CORRECT] + verdicts[Verdict.INCORRECT]
        accuracies[name] = verdicts[Verdict.CORRECT] / judged if judged else math.nan
    return accuracies


def _pass_at_k(questions: Mapping[Question, Records]) -> dict[str, float]:
    """pass@k for k = 1, 2, 4, … and the number of samples. Questions with an unjudged sample are left out."""
    counted = [
        (sum(r.verdict == Verdict.CORRECT for r in of_one), len(of_one))
        for of_one in questions.values()
        if all(r.verdict != Verdict.UNJUDGED for r in of_one)
    ]
    if not counted:
        return {}
    most = min(number for _, number in counted)
    ks = sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})
    return {str(k): float(np.mean([pass_at_k(correct, number, k) for correct, number in counted])) for k in ks}


def _majority_accuracy(questions: Mapping[Question, Records]) -> float:
    """Accuracy of the most frequent answer to each question, in which empty answers have no vote.

    Ties go to the answer that occurs first.
    """
    verdicts = Counter(_majority(of_one).verdict for of_one in questions.values())
    judged = verdicts[Verdict.CORRECT] + verdicts[Verdict.INCORRECT]
    return verdicts[Verdict.CORRECT] / judged if judged else math.nan


def _majority(samples: Records) -> EvaluationRecord:
    samples = [record for record in samples if any(text.strip() for text in record.answer.values())] or samples
    answers = [record.sample if record.same_answer_as is None else record.same_answer_as for record in samples]
    (winner, _), *_ = Counter(answers).most_common(1)
    return samples[answers.index(winner)]
