"""The heartbeats of a stage's ranks, and which of them have stopped."""

from collections.abc import Sequence
from dataclasses import dataclass

from sftkey_dist.errors import DataError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.underway import BEAT, Beat

_SILENT_AFTER_BEATS = 4


@dataclass(frozen=True)
class RankBeat:
    """The last heartbeat of a rank.

    Attributes:
        rank: number of the rank.
        when: time of the heartbeat by the clock of the file system, in seconds since the epoch.
        beat: its content.
    """

    rank: int
    when: float
    beat: Beat

    def __str__(self) -> str:
        return f"rank {self.rank} at step {self.beat.step} ({self.beat.phase})"


def read_beats(stage: StageDir) -> list[RankBeat]:
    """The last heartbeats of all ranks that have one, in the order of the ranks."""
    files = sorted(stage.heartbeats.glob("rank_*.json"))
    found = [_read(stage, int(rank)) for file in files if (rank := file.stem.removeprefix("rank_")).isdecimal()]
    return [beat for beat in found if beat is not None]


def silent_beats(beats: Sequence[RankBeat], seconds_between_beats: float, now: float = 0.0) -> list[RankBeat]:
    """The heartbeats of ranks that have missed several.

    Args:
        beats: the last heartbeats of all ranks.
        seconds_between_beats: seconds between two heartbeats of a rank.
        now: a time at which ranks should have beaten, by the clock of the file system; the newest beat counts too.
    """
    newest = max([now, *(beat.when for beat in beats)])
    return [beat for beat in beats if newest - beat.when > _SILENT_AFTER_BEATS * seconds_between_beats]


def _read(stage: StageDir, rank: int) -> RankBeat | None:
    file = stage.heartbeat(rank)
    try:
        return RankBeat(rank, file.stat().st_mtime, BEAT.read(file))
    except (OSError, DataError):
        return None
