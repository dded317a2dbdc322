"""Which runs of a study are finished, noted in each run's folder."""

from dataclasses import dataclass, field
from pathlib import Path

from sftkey_dist.digests import digest_file
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.kinds import JsonFile, absent_with

_DONE = "done.json"


@dataclass(frozen=True)
class DoneRun:
    """done.json in the folder of a finished run of a study, which is removed before a new start.

    Attributes:
        digest: of what the run was run with.
        comparison_digest: of its comparison.json, which another command may replace; runs of older versions have none.
    """

    digest: str
    comparison_digest: str | None = field(default=None, metadata=absent_with("comparison_digest"))


DONE = JsonFile(DoneRun, "remove it and `sftkey run` the study again")


def is_done(run: Path) -> bool:
    """Whether the run in a folder is done. A comparison alone may be one of an earlier configuration."""
    return done_with(run) is not None


def done_with(run: Path) -> str | None:
    """The digest of what a run was done with; None if it is not done, or if its comparison is another one now."""
    comparison = RunDir(run).comparison
    if not ((run / _DONE).is_file() and comparison.is_file()):
        return None
    done = DONE.read(run / _DONE)
    return done.digest if done.comparison_digest in (None, digest_file(comparison)) else None


def note_done(run: Path, digest: str) -> None:
    """Note that a run is done, with the comparison that is in its folder now."""
    DONE.write(run / _DONE, DoneRun(digest, digest_file(RunDir(run).comparison)))


def forget_done(run: Path) -> None:
    """Note that a run is not done."""
    (run / _DONE).unlink(missing_ok=True)
