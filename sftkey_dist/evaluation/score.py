"""Accuracy, format and their composite, with intervals; computed from records alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftkey_dist.evaluation.answers import Verdict

Interval = tuple[float, float]
_Z_95 = 1.959963984540054
_BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class Scores:
    """The measures of one evaluation.

    Attributes:
        n: test examples.
        accuracy: correct / judged (METHOD: a failing judge never counts as a wrong answer).
        accuracy_bounds: accuracy if all unjudged were wrong, and if all were right.
        format: share of outputs that keep the contract.
        score: alpha * accuracy + (1 - alpha) * format.
        alpha: weight of accuracy.
        unjudged: examples without a verdict.
        truncated: outputs cut at the token limit.
        violations: how many outputs broke which rule of the contract.
        accuracy_interval: 95 % Wilson interval.
        format_interval: 95 % Wilson interval.
        score_interval: 95 % bootstrap interval over examples.
    """

    n: int
    accuracy: float
    accuracy_bounds: Interval
    format: float
    score: float
    alpha: float
    unjudged: int
    truncated: int
    violations: dict[str, int]
    accuracy_interval: Interval
    format_interval: Interval
    score_interval: Interval


def score_records(records: Sequence[Mapping[str, Any]], alpha: float) -> Scores:
    """Score evaluation records (``verdict``, ``keeps_contract``, ``violation``, ``truncated`` of each)."""
    if not records:
        raise ValueError("there are no records to score")
    verdicts = Counter(record["verdict"] for record in records)
    correct, unjudged = verdicts[Verdict.CORRECT], verdicts[Verdict.UNJUDGED]
    n, judged = len(records), len(records) - unjudged
    kept = sum(bool(record["keeps_contract"]) for record in records)
    accuracy = correct / judged if judged else float("nan")
    return Scores(
        n=n,
        accuracy=accuracy,
        accuracy_bounds=(correct / n, (correct + unjudged) / n),
        format=kept / n,
        score=composite(accuracy, kept / n, alpha),
        alpha=alpha,
        unjudged=unjudged,
        truncated=sum(bool(record["truncated"]) for record in records),
        violations=dict(Counter(record["violation"] for record in records if record["violation"])),
        accuracy_interval=wilson_interval(correct, judged),
        format_interval=wilson_interval(kept, n),
        score_interval=_bootstrap_score(records, alpha),
    )


def composite(accuracy: float, format_share: float, alpha: float) -> float:
    """Score = alpha * Acc + (1 - alpha) * Fmt (arXiv:2512.21017, evaluation metrics)."""
    return alpha * accuracy + (1 - alpha) * format_share


def wilson_interval(successes: int, trials: int) -> Interval:
    """95 % Wilson score interval of a share; the whole unit interval without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def _bootstrap_score(records: Sequence[Mapping[str, Any]], alpha: float) -> Interval:
    correct = np.array([record["verdict"] == Verdict.CORRECT for record in records], dtype=float)
    judged = np.array([record["verdict"] != Verdict.UNJUDGED for record in records], dtype=float)
    kept = np.array([bool(record["keeps_contract"]) for record in records], dtype=float)
    picks = np.random.default_rng(0).integers(0, len(records), size=(_BOOTSTRAP_SAMPLES, len(records)))
    accuracies = correct[picks].sum(axis=1) / np.maximum(1, judged[picks].sum(axis=1))
    scores = alpha * accuracies + (1 - alpha) * kept[picks].mean(axis=1)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)
