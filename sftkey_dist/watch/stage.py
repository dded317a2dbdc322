"""What is known of a stage that is not finished, from its journals and heartbeats."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sftkey_dist.errors import DataError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile
from sftkey_dist.run_dir.artifacts.training import (
    EVENTS,
    METRICS,
    OBSERVATIONS,
    TIMINGS,
    Measurement,
    Observation,
    StepMetrics,
    StepTiming,
)
from sftkey_dist.run_dir.artifacts.underway import BEGINNING, Beginning
from sftkey_dist.run_dir.beats import RankBeat, read_beats, silent_beats
from sftkey_dist.run_dir.journal import Tail

Content = TypeVar("Content")

_SECONDS_BETWEEN_BEATS = 1.0
"""Of a stage that does not say it."""


@dataclass(frozen=True)
class StageState:
    """A stage at one moment.

    Attributes:
        title: strategy, place and name; the name of its folder if it does not say it.
        num_steps: number of optimizer steps; None if it does not say it.
        steps: metrics of the steps done.
        timings: wall-clock figures of the steps done.
        observations: measurements on held-out examples.
        event: message of the last event since its command began; "" if there was none.
        beats: the last heartbeats of all ranks.
        silent: those of ranks that have missed several.
        now: the newest known time of the file system's clock, in seconds since the epoch.
        last_step: when the last step ended, by the same clock; None before the first step.
    """

    title: str
    num_steps: int | None
    steps: Sequence[StepMetrics]
    timings: Sequence[StepTiming]
    observations: Sequence[Observation]
    event: str
    beats: Sequence[RankBeat]
    silent: Sequence[RankBeat]
    now: float
    last_step: float | None

    @property
    def steps_done(self) -> int:
        """Number of optimizer steps that are done."""
        return self.steps[-1].step + 1 if self.steps else 0


class StageWatch:
    """Reads a stage again and again, each line of its journals once."""

    def __init__(self, stage: StageDir) -> None:
        self._stage = stage
        self._steps = _Records(METRICS, stage.metrics)
        self._timings = _Records(TIMINGS, stage.timings)
        self._observations = _Records(OBSERVATIONS, stage.validation)
        self._event_tail = EVENTS.tail(stage.events)
        self._events: list[str] = []
        self._beats: list[RankBeat] = []
        self._beats_read = float("-inf")

    def look(self, writer_beat: float) -> StageState:
        """The stage as it is now.

        Args:
            writer_beat: when the run's command last showed a sign of life, by the clock of the file system.

        Raises:
            DataError: a journal is damaged.
        """
        beginning = beginning_of(self._stage)
        self._events += [event.message for event in self._event_tail.new_records()]
        self._read_beats(beginning.seconds_between_beats)
        return StageState(
            title=beginning.title,
            num_steps=beginning.num_steps or None,
            steps=self._steps.catch_up(),
            timings=self._timings.catch_up(),
            observations=self._observations.catch_up(),
            event=next(reversed(self._events[beginning.earlier_events or 0 :]), ""),
            beats=self._beats,
            silent=silent_beats(self._beats, beginning.seconds_between_beats, writer_beat),
            now=max([writer_beat, *(beat.when for beat in self._beats)]),
            last_step=last_written(self._stage.timings),
        )

    def _read_beats(self, seconds_between_beats: float) -> None:
        """Read the heartbeats as often as they are written, because there is a file for every rank."""
        if time.monotonic() - self._beats_read >= max(_SECONDS_BETWEEN_BEATS, seconds_between_beats):
            self._beats, self._beats_read = read_beats(self._stage), time.monotonic()


class _Records(Generic[Measurement]):
    """The records of a journal, one per step, although restarted workers write steps again."""

    def __init__(self, journal: Journal[Measurement], path: Path) -> None:
        self._tail: Tail[Measurement] = journal.tail(path)
        self._records: list[Measurement] = []

    def catch_up(self) -> list[Measurement]:
        with suppress(FileNotFoundError):  # it is being replaced
            for record in self._tail.new_records():
                while self._records and self._records[-1].step >= record.step:
                    self._records.pop()
                self._records.append(record)
        return self._records


def beginning_of(stage: StageDir) -> Beginning:
    """What a stage says of itself. A stage of an earlier version says nothing, and has 0 steps then.

    Raises:
        DataError: the file is damaged.
    """
    unknown = Beginning(stage.path.name.rpartition("-")[0], 0, _SECONDS_BETWEEN_BEATS)
    return read_if_there(BEGINNING, stage.beginning) or unknown


def read_if_there(kind: JsonFile[Content], file: Path) -> Content | None:
    """The content of a file; None if there is none, or if the run removes it at this moment.

    Raises:
        DataError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        return kind.read(file)
    except DataError:
        if file.is_file():
            raise
        return None


def last_sign(stage: StageDir) -> float:
    """When a stage last wrote anything, by the clock of the file system; 0 if it never did."""
    files = stage.beginning, stage.heartbeats, stage.metrics, stage.timings
    return max(last_written(file) or 0.0 for file in files)


def last_written(file: Path) -> float | None:
    """When a file was last written; None if there is none."""
    with suppress(OSError):
        return file.stat().st_mtime
    return None
