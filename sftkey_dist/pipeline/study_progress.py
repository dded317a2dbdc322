"""How far the runs of a study are, and how long the rest of them will take."""

import heapq
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from statistics import fmean

from sftkey_dist.config.study import Study, StudyRun
from sftkey_dist.console import ProgressLine
from sftkey_dist.errors import UserError
from sftkey_dist.watch.run import RunWatch
from sftkey_dist.watch.view import in_one_line


class StudyProgress:
    """Shows which runs are at work, what each of them does, and the time left."""

    def __init__(self, study: Study, num_done: int, line: ProgressLine) -> None:
        self._study, self._num_done, self._line = study, num_done, line
        self._started: dict[str, float] = {}
        self._watches: dict[str, RunWatch] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        """Of the runs that this command has finished, by variant."""
        line.update(num_done)

    def begin(self, run: StudyRun) -> None:
        """A run has been started."""
        self._started[run.name] = time.monotonic()
        self._watches[run.name] = RunWatch(self._study.folder / run.name)

    def end(self, run: StudyRun, *, failed: bool) -> float:
        """A run has ended.

        Returns:
            How long it took, in seconds.
        """
        seconds = time.monotonic() - self._started.pop(run.name)
        del self._watches[run.name]
        self._num_done += 1
        if not failed:
            self._seconds[run.variant].append(seconds)
        return seconds

    def show(self, at_work: Sequence[StudyRun], waiting: Sequence[StudyRun]) -> None:
        """Update the line."""
        note = "; ".join(filter(None, (f"{run.name} {self._what_happens(run)}".strip() for run in at_work)))
        self._line.update(self._num_done, note, self._seconds_left(at_work, waiting))

    def _what_happens(self, run: StudyRun) -> str:
        with suppress(UserError, OSError):  # it has not written anything yet, or is replacing a file at this moment
            return in_one_line(self._watches[run.name].look())
        return ""

    def _seconds_left(self, at_work: Sequence[StudyRun], waiting: Sequence[StudyRun]) -> float | None:
        """None before a run is finished. A waiting run starts when one at work ends, as `run_study` starts them."""
        if not self._seconds:
            return None
        now = time.monotonic()
        ends = [max(0.0, self._expected(run) - (now - self._started[run.name])) for run in at_work]
        heapq.heapify(ends)
        for run in waiting:
            heapq.heapreplace(ends, ends[0] + self._expected(run))
        return max(ends, default=0.0)

    def _expected(self, run: StudyRun) -> float:
        """Seconds that a run takes: the mean of its variant, or of all if none of its variant is finished."""
        return fmean(self._seconds.get(run.variant) or [each for of in self._seconds.values() for each in of])
