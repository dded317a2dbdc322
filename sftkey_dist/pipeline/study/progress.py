"""How far the runs of a study are, and how long the rest of them will take."""

import heapq
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from statistics import fmean

from sftkey_dist.config.study import Study, StudyRun
from sftkey_dist.console import ProgressLine, console
from sftkey_dist.run_dir import RunDir
from sftkey_dist.watch.run import RunWatch
from sftkey_dist.watch.view import in_one_line

_POLL_SECONDS = 5.0
"""Runs are looked at less often than their ends are, because their files may be on storage that many nodes share."""


class StudyProgress:
    """Shows which runs are at work, what each of them does, and the time left."""

    def __init__(self, study: Study, num_done: int, line: ProgressLine) -> None:
        self._study, self._num_done, self._line = study, num_done, line
        self._at_work: dict[str, _RunAtWork] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        """Of the runs that this command has done from their beginning to their end, by variant."""
        line.update(num_done)

    def begin(self, run: StudyRun) -> None:
        """A run has been started."""
        self._at_work[run.name] = _RunAtWork(run, RunDir(self._study.folder / run.name))

    def end(self, run: StudyRun, *, has_failed: bool) -> None:
        """A run has ended."""
        ended = self._at_work.pop(run.name)
        self._num_done += 1
        if ended.is_new and not has_failed:
            self._seconds[run.variant].append(ended.seconds)
        how = "failed" if has_failed else "done"
        console.print(f"{run.name}: {how} after {ended.seconds:.0f} s", markup=False, soft_wrap=True)
        self._line.update_with_estimate(self._num_done, "", None)

    def show(self, waiting: Sequence[StudyRun]) -> None:
        """Update the line."""
        note = "; ".join(f"{name} {one.what_happens()}".strip() for name, one in self._at_work.items())
        self._line.update_with_estimate(self._num_done, note, self._seconds_left(waiting))

    def _seconds_left(self, waiting: Sequence[StudyRun]) -> float | None:
        """None before a run is done. A waiting run starts when one at work ends, as `run_study` starts them."""
        if not self._seconds or not self._at_work:
            return None
        ends = [max(0.0, self._expected(one.run) - one.seconds) for one in self._at_work.values()]
        heapq.heapify(ends)
        for run in waiting:
            heapq.heapreplace(ends, ends[0] + self._expected(run))
        return max(ends)

    def _expected(self, run: StudyRun) -> float:
        """Seconds that a run takes: the mean of its variant, or of all if none of its variant is done."""
        return fmean(self._seconds.get(run.variant) or [each for of in self._seconds.values() for each in of])


class _RunAtWork:
    def __init__(self, run: StudyRun, folder: RunDir) -> None:
        self.run = run
        self.is_new = not any(folder.stages())
        """Whether nothing was trained earlier, so that the time it takes says something about other runs."""
        self._started = time.monotonic()
        self._watch = RunWatch(folder.path)
        self._looked, self._seen = float("-inf"), ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def what_happens(self) -> str:
        """In a few words; "" before the run has written anything."""
        if time.monotonic() - self._looked > _POLL_SECONDS:
            self._looked = time.monotonic()
            with suppress(Exception):  # a file that is being replaced, or is damaged, must not end a study
                self._seen = in_one_line(self._watch.look())
        return self._seen
