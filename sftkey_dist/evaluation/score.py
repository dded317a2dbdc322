"""Accuracy, format and their composite, with intervals; computed from records alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from sftkey_dist.evaluation.answers.text import normalized
from sftkey_dist.evaluation.statistics import Estimate, Interval, pass_at_k, share_of_clusters, weighted_sum
from sftkey_dist.evaluation.verdict import Verdict

Records = Sequence[Mapping[str, Any]]
Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A measure; nan where nothing was judged, which is null in files."""


@dataclass(frozen=True)
class Scores:
    """The measures of one evaluation, or of one test set of it.

    Attributes:
        n: outputs; questions times samples.
        accuracy: correct / judged: a failing judge never counts as a wrong answer, an unjudgeable text does; see
            `verdict`.
        accuracy_bounds: accuracy if all unjudged were wrong, and if all were right.
        format: share of outputs that keep the contract.
        parser_success: share of outputs in which every key segment was found at its mark, contract kept or not.
        score: alpha * accuracy + (1 - alpha) * format. What ranks is `lowest_score`.
        strict_score: the same where an output that breaks the contract scores 0 in both.
        alpha: weight of accuracy.
        unjudged: outputs without a verdict.
        unjudged_reasons: why.
        truncated: outputs cut at the token limit.
        violations: how many outputs broke which rule of the contract.
        accuracy_interval: 95 %, Wilson's over questions; see `statistics`.
        format_interval: likewise.
        score_interval: likewise, of both together; the whole of [0, 1] where nothing was judged.
        fields: accuracy of each key segment.
        pass_at_k: chance that one of k samples is right, by k; empty without samples.
        majority_accuracy: accuracy of the answer that most samples of a question give (self-consistency).
        explanation_rating: mean of the judges' ratings, 1 to 5, where they were asked.
        unjudgeable: incorrect outputs whose text kept them from being judged, by the name of the failure.
    """

    n: int
    accuracy: Measured
    accuracy_bounds: Interval
    format: float
    parser_success: float
    score: Measured
    strict_score: Measured
    alpha: float
    unjudged: int
    unjudged_reasons: dict[str, int]
    truncated: int
    violations: dict[str, int]
    accuracy_interval: Interval
    format_interval: Interval
    score_interval: Interval
    fields: dict[str, Measured] = field(default_factory=dict)
    pass_at_k: dict[str, float] = field(default_factory=dict)
    majority_accuracy: float | None = None
    explanation_rating: float | None = None
    unjudgeable: dict[str, int] = field(default_factory=dict)

    @property
    def lowest_accuracy(self) -> float:
        """With all unjudged outputs counted as wrong: what strategies are ranked by, so that a gap never pays."""
        return self.accuracy_bounds[0]

    @property
    def lowest_score(self) -> float:
        """The score with all unjudged outputs counted as wrong."""
        return composite(self.lowest_accuracy, self.format, self.alpha)


def score_records(records: Records, alpha: float) -> Scores:
    """Score evaluation records."""
    if not records:
        raise ValueError("there are no records to score")
    verdicts = Counter(record["verdict"] for record in records)
    correct, unjudged = verdicts[Verdict.CORRECT], verdicts[Verdict.UNJUDGED]
    n, judged = len(records), len(records) - unjudged
    kept = sum(bool(record["keeps_contract"]) for record in records)
    strict = sum(record["verdict"] == Verdict.CORRECT and bool(record["keeps_contract"]) for record in records)
    accuracy = correct / judged if judged else math.nan
    measures = measures_of(*outcome_sums(records)[1:], alpha)
    questions = _by_question(records)
    has_samples = len(questions) < n
    ratings = [record["explanation_rating"] for record in records if record.get("explanation_rating")]
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
        unjudged_reasons=dict(Counter(r["reason"] for r in records if r["verdict"] == Verdict.UNJUDGED)),
        truncated=sum(bool(record["truncated"]) for record in records),
        violations=dict(Counter(record["violation"] for record in records if record["violation"])),
        accuracy_interval=measures.accuracy.interval,
        format_interval=measures.format.interval,
        score_interval=measures.score.interval if judged or not alpha else (0.0, 1.0),
        fields=_field_accuracies(records),
        pass_at_k=_pass_at_k(questions) if has_samples else {},
        majority_accuracy=_majority_accuracy(questions) if has_samples else None,
        explanation_rating=sum(ratings) / len(ratings) if ratings else None,
        unjudgeable=dict(Counter(r["unjudgeable"] for r in records if r.get("unjudgeable"))),
    )


def score_by_data_set(records: Records, alpha: float) -> dict[str, Scores]:
    """The scores of each test set."""
    names = dict.fromkeys(record["data_set"] for record in records)
    return {name: score_records([r for r in records if r["data_set"] == name], alpha) for name in names}


def macro_average(by_data_set: Mapping[str, Scores]) -> dict[str, float]:
    """Means over test sets, each counting the same however large (the paper's averages)."""
    return {
        name: float(np.mean([getattr(scores, name) for scores in by_data_set.values()]))
        for name in ("accuracy", "format", "score", "strict_score")
    }


def composite(accuracy: float, format_share: float, alpha: float) -> float:
    """Score = alpha * Acc + (1 - alpha) * Fmt (arXiv:2512.21017, evaluation metrics)."""
    return (alpha * accuracy if alpha else 0.0) + (1 - alpha) * format_share  # without weight it may be unknown


class Measures(NamedTuple):
    """Accuracy, format and score with their intervals."""

    accuracy: Estimate
    format: Estimate
    score: Estimate


def measures_of(sums: np.ndarray, counts: np.ndarray, alpha: float) -> Measures:
    """From what `outcome_sums` counts."""
    accuracy, form = (share_of_clusters(sums[:, i], counts[:, i]) for i in (0, 1))
    return Measures(accuracy, form, weighted_sum(accuracy, alpha, form, 1 - alpha))


def outcome_sums(records: Records) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Per question: its key, (correct, kept) and (judged, outputs), each [N, 2]."""
    questions = _by_question(records)
    sums = np.array(
        [
            [sum(r["verdict"] == Verdict.CORRECT for r in of_one), sum(bool(r["keeps_contract"]) for r in of_one)]
            for of_one in questions.values()
        ],
        dtype=float,
    )
    counts = np.array(
        [[sum(r["verdict"] != Verdict.UNJUDGED for r in of_one), len(of_one)] for of_one in questions.values()],
        dtype=float,
    )
    return list(questions), sums, counts


def _by_question(records: Records) -> dict[Any, list[Mapping[str, Any]]]:
    """The samples of each question; a prompt that differs is another one, and without ids every record is its own."""
    ids = [
        (record.get("data_set", ""), record.get("id", number), record.get("prompt", ""))
        for number, record in enumerate(records)
    ]
    ordered = sorted(zip(ids, range(len(records)), strict=True), key=lambda pair: (str(pair[0]), pair[1]))
    return {key: [records[i] for _, i in group] for key, group in groupby(ordered, key=lambda pair: pair[0])}


def _has_found_answer(record: Mapping[str, Any]) -> bool:
    reference = record.get("reference", {})
    return all(
        source != "whole" or not reference.get(name, "x").strip()  # an optional segment may be absent
        for name, source in record.get("answer_source", {}).items()
    )


def _field_accuracies(records: Records) -> dict[str, float]:
    names = dict.fromkeys(name for record in records for name in record.get("fields", {}))
    accuracies = {}
    for name in names:
        verdicts = Counter(record["fields"][name] for record in records)
        judged = verdicts[Verdict.CORRECT] + verdicts[Verdict.INCORRECT]
        accuracies[name] = verdicts[Verdict.CORRECT] / judged if judged else math.nan
    return accuracies


def _pass_at_k(questions: Mapping[Any, Records]) -> dict[str, float]:
    """For k = 1, 2, 4, … and all samples; questions with an unjudged sample are left out."""
    counted = [
        (sum(r["verdict"] == Verdict.CORRECT for r in of_one), len(of_one))
        for of_one in questions.values()
        if all(r["verdict"] != Verdict.UNJUDGED for r in of_one)
    ]
    if not counted:
        return {}
    most = min(number for _, number in counted)
    ks = sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})
    return {str(k): float(np.mean([pass_at_k(correct, number, k) for correct, number in counted])) for k in ks}


def _majority_accuracy(questions: Mapping[Any, Records]) -> float:
    """Of equally frequent answers the one that came first is taken."""
    verdicts = Counter(_majority(of_one)["verdict"] for of_one in questions.values())
    judged = verdicts[Verdict.CORRECT] + verdicts[Verdict.INCORRECT]
    return verdicts[Verdict.CORRECT] / judged if judged else math.nan


def _majority(samples: Records) -> Mapping[str, Any]:
    answers = [tuple(normalized(text) for text in record["answer"].values()) for record in samples]
    (winner, _), *_ = Counter(answers).most_common(1)
    return samples[answers.index(winner)]
