"""Several trackers of the same events."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sftkey_dist.tracking.numbers import numbers_of
from sftkey_dist.tracking.tracker import DataSetNote, MeasuredScores, ModelNote, RunStatus, Tracker


class SeveralTrackers:
    """Tells several trackers the same. A run has the id that the first of them gives it that has started it.

    What one tracker lacks does not reach another twice: each gets the steps after those that it has.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers
        self._ids: dict[str, list[str | None]] = {}
        self._next_steps: dict[tuple[str | None, str], list[int]] = {}

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str | None:
        """See Tracker. A tracker that could not start the parent does not start the run."""
        ids = [
            None if parent is not None and above is None else tracker.start_run(key, name, above, tags)
            for tracker, above in self._each(parent)
        ]
        run_id = next((own for own in ids if own is not None), None)
        if run_id is not None:
            self._ids[run_id] = ids
        return run_id

    def mlflow_run_id(self, run_id: str | None) -> str | None:
        """See Tracker."""
        return next((found for tracker, own in self._each(run_id) if (found := tracker.mlflow_run_id(own))), None)

    def log_params(self, run_id: str | None, params: Mapping[str, object]) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.log_params(own, params)

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """See Tracker. Records that a tracker had when it was asked by `steps_logged` are left out."""
        for number, (tracker, own) in enumerate(self._each(run_id)):
            lacking = [record for record in records if not self._has(run_id, number, record)]
            if lacking:
                tracker.log_steps(own, lacking)

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.log_summary(own, metrics)

    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.log_artifact(own, path)

    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int | None:
        """See Tracker. Those that answer have everything even if another does not answer."""
        counts = [None if own is None else tracker.log_missing(own, records) for tracker, own in self._each(run_id)]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def log_table(self, run_id: str | None, columns: Mapping[str, Sequence[object]], file: str) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.log_table(own, columns, file)

    def log_data_set(self, run_id: str | None, data_set: DataSetNote) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.log_data_set(own, data_set)

    def note_model(self, run_id: str | None, model: ModelNote) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.note_model(own, model)

    def log_model(self, run_id: str | None, folder: Path, trust_remote_code: bool = False) -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.log_model(own, folder, trust_remote_code)

    def log_scores(self, run_id: str | None, scores: Sequence[MeasuredScores], model_of: str | None) -> None:
        """See Tracker."""
        for (tracker, own), (_, others) in zip(self._each(run_id), self._each(model_of), strict=True):
            tracker.log_scores(own, scores, others)

    @contextmanager
    def watching_system(self, run_id: str | None) -> Iterator[None]:
        """See Tracker."""
        with ExitStack() as stack:
            for tracker, own in self._each(run_id):
                stack.enter_context(tracker.watching_system(own))
            yield

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """See Tracker. It is the first step that any of the trackers lacks."""
        logged = [tracker.steps_logged(own, metrics) for tracker, own in self._each(run_id)]
        self._next_steps |= {(run_id, metric): logged for metric in metrics}
        return min(logged)

    def end_run(self, run_id: str | None, status: RunStatus = "FINISHED") -> None:
        """See Tracker."""
        for tracker, own in self._each(run_id):
            tracker.end_run(own, status)

    def has_finished(self, key: str) -> bool:
        """See Tracker."""
        return all(tracker.has_finished(key) for tracker in self._trackers)

    def _each(self, run_id: str | None) -> Iterator[tuple[Tracker, str | None]]:
        """Every tracker with its own id of a run."""
        nowhere: list[str | None] = [None] * len(self._trackers)
        yield from zip(self._trackers, nowhere if run_id is None else self._ids.get(run_id, nowhere), strict=True)

    def _has(self, run_id: str | None, number: int, record: Mapping[str, object]) -> bool:
        """Whether the tracker of that number had the record's step when it was asked for any of its metrics."""
        asked = [self._next_steps.get((run_id, metric)) for metric in numbers_of(record)]
        return any(steps is not None and int(str(record["step"])) < steps[number] for steps in asked)
