"""How far a trained model does better or worse than its base model, on the same documents."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import ttest_rel

from sftkey_dist.evaluation.crossed import holm_of_tested
from sftkey_dist.evaluation.statistics import (
    Interval,
    difference_interval,
    mcnemar_exact,
    share_of_clusters,
)
from sftkey_dist.run_dir.artifacts.capabilities import CapabilityMetric, CapabilityResult

_LEVEL = 0.05


@dataclass(frozen=True)
class CapabilityChange:
    """A metric of a task before and after the training.

    Attributes:
        task: name of the task, or of the group of tasks.
        metric: name of the metric.
        n: number of documents that both models have a value for; 0 if the metric is no mean over documents.
        before: the base model's.
        after: the trained model's.
        difference: after minus before.
        difference_interval: 95 % interval, paired by document; nan without documents.
        p_value: two-sided p-value: McNemar's exact test if each document is right or wrong, else the paired t-test;
            None without a test.
        adjusted_p_value: the same with Holm's correction for all tests of the run.
        higher_is_better: None if the task does not say it.
    """

    task: str
    metric: str
    n: int
    before: float
    after: float
    difference: float
    difference_interval: Interval
    p_value: float | None
    adjusted_p_value: float | None = None
    higher_is_better: bool | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the models differ at the 5 % level, all tests of the run taken together."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < _LEVEL

    @property
    def is_loss(self) -> bool:
        """Whether the trained model is significantly worse."""
        return self.is_significant and (self.difference < 0) == (self.higher_is_better is not False)


def capability_changes(
    base: Sequence[CapabilityResult], strategies: Mapping[str, Sequence[CapabilityResult]]
) -> dict[str, tuple[CapabilityChange, ...]]:
    """The changes of each strategy's model in the tasks that it and the base model have results for."""
    before = {result.task: result for result in base}
    found = {
        name: tuple(
            change for result in results if result.task in before for change in _of(before[result.task], result)
        )
        for name, results in strategies.items()
    }
    p_values = {(name, i): of.p_value for name, changes in found.items() for i, of in enumerate(changes)}
    adjusted = holm_of_tested(p_values)
    return {
        name: tuple(replace(of, adjusted_p_value=adjusted.get((name, i))) for i, of in enumerate(changes))
        for name, changes in found.items()
    }


def _of(before: CapabilityResult, after: CapabilityResult) -> list[CapabilityChange]:
    known = {metric.name: metric for metric in before.metrics}
    return [_compared(after.task, known[metric.name], metric) for metric in after.metrics if metric.name in known]


def _compared(task: str, before: CapabilityMetric, after: CapabilityMetric) -> CapabilityChange:
    shared = [document for document in after.values if document in before.values]
    if not shared:
        interval, p_value, means = (math.nan, math.nan), None, (before.mean, after.mean)
    else:
        first, second = (np.array([of.values[document] for document in shared]) for of in (after, before))
        interval, p_value = _tested(first, second)
        means = float(second.mean()), float(first.mean())
    return CapabilityChange(
        task=task,
        metric=after.name,
        n=len(shared),
        before=means[0],
        after=means[1],
        difference=means[1] - means[0],
        difference_interval=interval,
        p_value=p_value,
        higher_is_better=after.higher_is_better,
    )


def _tested(first: np.ndarray, second: np.ndarray) -> tuple[Interval, float | None]:
    """Interval of the mean of ``first`` minus ``second``, both [documents], and the p-value that they are equal."""
    if set(np.unique([first, second])) <= {0.0, 1.0}:
        trials = np.ones(len(first))
        interval = difference_interval(share_of_clusters(first, trials), share_of_clusters(second, trials))
        return interval, mcnemar_exact(int((first > second).sum()), int((first < second).sum()))
    if len(first) < 2 or np.ptp(first - second) == 0:  # the test divides by the spread of the differences
        return (math.nan, math.nan), None
    found = ttest_rel(first, second)
    low, high = found.confidence_interval(0.95)
    return (float(low), float(high)), float(found.pvalue)
