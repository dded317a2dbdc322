"""Follows the journals of a stage from the driver, for the progress bar and MLflow, without messages from workers."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic

from sftkey_dist.console import ProgressLine, console, progress_line
from sftkey_dist.errors import DataError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.kinds import Journal, to_plain
from sftkey_dist.run_dir.artifacts.training import (
    EVENTS,
    METRICS,
    OBSERVATIONS,
    TIMINGS,
    Measurement,
)
from sftkey_dist.run_dir.journal import Tail
from sftkey_dist.tracking import Tracker
from sftkey_dist.watch.words import speed_in_words

_POLL_SECONDS = 0.5
_SECONDS_BETWEEN_LOGS = 5.0
"""Steps are logged in batches, because on a small machine the driver shares its processors with training."""


@contextmanager
def follow_stage(
    stage_dir: StageDir, title: str, num_steps: int, tracker: Tracker, run_id: str | None
) -> Iterator[None]:
    """Show the stage's progress and log its steps while the block runs, and log the rest at its end."""
    with progress_line(title, num_steps) as line:
        follower = _Follower(stage_dir, title, line, tracker, run_id)
        finished = threading.Event()
        thread = threading.Thread(target=_poll, args=(follower, finished), name="stage-monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            follower.catch_up(is_last=True)


def _poll(follower: "_Follower", finished: threading.Event) -> None:
    with suppress(DataError):  # a damaged journal is reported when the stage ends
        while not finished.wait(_POLL_SECONDS):
            follower.catch_up()


class _Follower:
    def __init__(
        self, stage_dir: StageDir, title: str, line: ProgressLine, tracker: Tracker, run_id: str | None
    ) -> None:
        self._metrics = _Logged(METRICS, stage_dir.metrics, tracker, run_id, ("loss",))
        self._timings = _Logged(TIMINGS, stage_dir.timings, tracker, run_id, ("seconds",))
        self._validation = _Logged(
            OBSERVATIONS, stage_dir.validation, tracker, run_id, ("validation/loss", "guard/score")
        )
        self._events = EVENTS.tail(stage_dir.events)
        self._events.new_records()  # skip events of earlier commands, which have been shown already
        self._title = title
        self._line = line
        self._logged = time.monotonic()
        self._tokens_per_second = 0.0
        if earlier := self._metrics.log_new(False):  # of earlier commands: they say nothing about this one's speed
            line.update_with_estimate(earlier[-1].step + 1, "", None)

    def catch_up(self, *, is_last: bool = False) -> None:
        for event in self._events.new_records():
            console.print(f"{self._title}: {event.message}", soft_wrap=True, markup=False)
        is_due = is_last or time.monotonic() - self._logged > _SECONDS_BETWEEN_LOGS
        metrics, timings = self._metrics.log_new(is_due), self._timings.log_new(is_due)
        self._validation.log_new(True)  # they are rare, and a tuning decides by them whether to go on
        if is_due:
            self._logged = time.monotonic()
        if timings:
            self._tokens_per_second = timings[-1].tokens_per_second
        if metrics:
            self._line.update(metrics[-1].step + 1, speed_in_words(metrics[-1].loss, self._tokens_per_second))


class _Logged(Generic[Measurement]):
    """Logs each step once, although a restarted worker group writes steps again that were already logged."""

    def __init__(
        self, journal: Journal[Measurement], path: Path, tracker: Tracker, run_id: str | None, metrics: Sequence[str]
    ) -> None:
        self._tail: Tail[Measurement] = journal.tail(path)
        self._tracker, self._run_id = tracker, run_id
        self._next_to_log = tracker.steps_logged(run_id, metrics)
        self._waiting: list[Measurement] = []

    def log_new(self, is_due: bool) -> list[Measurement]:
        """Return the records that were added since the last call, and log all waiting ones if it is time to."""
        records = self._tail.new_records()
        self._waiting += [record for record in records if record.step >= self._next_to_log]
        if records:
            self._next_to_log = max(self._next_to_log, records[-1].step + 1)
        if is_due and self._waiting:
            self._tracker.log_steps(self._run_id, [to_plain(record) for record in self._waiting])
            self._waiting = []
        return records
