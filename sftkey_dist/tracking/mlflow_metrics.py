"""Sends metrics to MLflow: each once, and again with later ones where the store did not answer."""

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric

_MAX_BATCH = 900  # MLflow takes 1,000 metrics a call
_MAX_UNSENT = 100_000


class MetricsOfRuns:
    """The metrics of runs, with those that could not be sent yet."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._unsent: dict[str, list[Metric]] = {}
        self._cut: set[str] = set()
        self._unknown: set[str] = set()

    def send(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Send metrics, after those of the run that could not be sent before.

        Raises:
            Exception: of the store, which did not answer. The metrics are sent with the next ones.
        """
        waiting = [*self._unsent.pop(run_id, []), *metrics]
        self._unsent[run_id] = waiting[-_MAX_UNSENT:]
        if len(waiting) > _MAX_UNSENT:
            self._cut.add(run_id)
        if run_id in self._unknown:
            waiting = self.missing(run_id, waiting)
        for start in range(0, len(waiting), _MAX_BATCH):
            self._client.log_batch(run_id, metrics=waiting[start : start + _MAX_BATCH])
        self._unknown.discard(run_id)
        del self._unsent[run_id]

    def missing(self, run_id: str, metrics: Sequence[Metric]) -> list[Metric]:
        """The metrics that the run does not have at their steps."""
        known = {
            (key, point.step)
            for key in dict.fromkeys(metric.key for metric in metrics)
            for point in self._client.get_metric_history(run_id, key)
        }
        return [metric for metric in metrics if (metric.key, metric.step) not in known]

    def num_steps(self, run_id: str, key: str) -> int:
        """The step after the last one of a metric.

        Raises:
            Exception: of the store, which did not answer. What the run has is then looked up when metrics are sent.
        """
        self._unknown.add(run_id)
        steps = 1 + max((point.step for point in self._client.get_metric_history(run_id, key)), default=-1)
        self._unknown.discard(run_id)
        return steps

    def are_unsent(self, run_id: str) -> bool:
        """Whether metrics of the run could not be sent, or were too many to be kept until they can be."""
        return run_id in self._unsent or run_id in self._cut
