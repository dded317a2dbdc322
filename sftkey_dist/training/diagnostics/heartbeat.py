"""Each rank records its step and phase at intervals, so that a hang can be traced to a rank."""

import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from sftkey_dist.files import to_json, write_text_atomically
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.underway import Beat
from sftkey_dist.run_dir.beats import RankBeat, read_beats, silent_beats
from sftkey_dist.training.diagnostics.stacks import StackDump
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch

_BEATS_PER_TIMEOUT = 20
_MIN_SECONDS = 0.25


class Heartbeat:
    """Writes this rank's step and phase from another thread, while the block lasts, and its stacks when it hangs.

    Attributes:
        step: the step that is run, set by the loop.
        peak_memory_gib: peak memory of this rank, set by the loop.
    """

    def __init__(self, stage: StageDir, rank: int, watch: Stopwatch, timeout_seconds: float) -> None:
        """
        Args:
            stage: the stage that this rank trains.
            rank: this rank; no other writes to its files.
            watch: says which phase this rank is in.
            timeout_seconds: how long other ranks wait for this one.
        """
        self.step = 0
        self.peak_memory_gib: float | None = None
        self._file, self._stack_file, self._watch = stage.heartbeat(rank), stage.stack(rank), watch
        self._timeout_seconds, self._seconds = timeout_seconds, seconds_between_beats(timeout_seconds)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        stacks, phases = StackDump(self._stack_file, self._timeout_seconds), self._watch.num_phases
        while not self._ended.wait(self._seconds):
            beat = Beat(self.step, self._watch.current_phase, os.getpid(), self.peak_memory_gib)
            with suppress(OSError):  # a full disk must not end the heartbeat for good
                write_text_atomically(self._file, to_json(to_plain(beat)))
            if phases != self._watch.num_phases:
                phases = self._watch.num_phases
                stacks.postpone()
        stacks.close()


def who_is_missing(stage: StageDir, world_size: int, timeout_seconds: float) -> str:
    """Name the ranks that the others waited for: those whose heartbeat has stopped, else those at another place.

    Args:
        stage: the stage that the ranks train.
        world_size: number of ranks.
        timeout_seconds: how long ranks wait for each other.
    """
    beats = [beat for beat in read_beats(stage) if beat.rank < world_size]
    absent = sorted(set(range(world_size)) - {beat.rank for beat in beats})
    if not beats or absent:
        return "no heartbeat from ranks " + ", ".join(map(str, absent))
    if silent := silent_beats(beats, seconds_between_beats(timeout_seconds)):
        return f"no sign of life from {_listed(silent)}"
    usual = Counter((of.beat.step, of.beat.phase) for of in beats).most_common(1)[0][0]
    elsewhere = [of for of in beats if (of.beat.step, of.beat.phase) != usual]
    if 2 * len(elsewhere) >= world_size:  # no majority to compare with
        elsewhere = beats
    return f"found {_listed(elsewhere)}" if elsewhere else f"all ranks were at step {usual[0]} ({usual[1]})"


def seconds_between_beats(timeout_seconds: float) -> float:
    """Short enough to notice within a timeout which rank has stopped."""
    return max(_MIN_SECONDS, timeout_seconds / _BEATS_PER_TIMEOUT)


def _listed(beats: Sequence[RankBeat]) -> str:
    return ", ".join(map(str, beats))
