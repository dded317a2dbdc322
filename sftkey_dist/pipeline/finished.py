"""Integrity of finished models: digests of their files are recorded when a stage ends, and verified before use.

Nothing else detects a flipped bit in stored weights, because safetensors has no checksums.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sftkey_dist.console import progress_line
from sftkey_dist.digests import FileNote
from sftkey_dist.errors import DataError
from sftkey_dist.files import flush, flush_those_there
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import (
    EVENTS,
    METRICS,
    OBSERVATIONS,
    TIMINGS,
    read_summary,
)

_MODEL_CARD = "README.md"
"""Rewritten with every comparison."""
_MIB = 2**20
_SHOWN_FROM_BYTES = 2**30
"""Reading less takes only a moment, so no progress is shown."""


def note_model(stage: StageDir) -> dict[str, FileNote]:
    """Size and digest of every file of a stage's model except its card, by path relative to the model's folder."""
    files = [file for file in sorted(stage.model.rglob("*")) if file.is_file() and file.name != _MODEL_CARD]
    with _progress("recording digests of the model", sum(file.stat().st_size for file in files)) as on_bytes:
        return {file.relative_to(stage.model).as_posix(): FileNote.of(file, on_bytes) for file in files}


def make_durable(stage: StageDir) -> None:
    """Flush the journals of a stage, and the names of everything that it has written, to disk."""
    flush_those_there(stage.journals)
    for folder in (stage.path, *stage.path.parents[:2]):
        flush(folder)


def verify_stages(plan: RunPlan) -> None:
    """Verify the files of stages that earlier commands wrote, once per command.

    Stages without recorded digests are not verified.

    Raises:
        DataError: a file of a finished stage was changed, or a journal of an unfinished stage is damaged.
    """
    new = [planned for planned in plan.stages if planned.digest not in plan.verified]
    for planned in new:
        if not planned.is_trained:
            _read_journals(planned.directory)
    finished = [planned for planned in new if planned.is_finished]
    verify_models([planned.directory for planned in finished])
    plan.verified.update(planned.digest for planned in finished)


def _read_journals(stage: StageDir) -> None:
    METRICS.read(stage.metrics)
    TIMINGS.read(stage.timings)
    OBSERVATIONS.read(stage.validation)
    EVENTS.read(stage.events)


def verify_models(stages: Iterable[StageDir]) -> None:
    """Verify the files of finished models; all sizes before the first digest, because checking sizes is fast.

    Raises:
        DataError: a file was changed since its stage ended.
    """
    expected = [
        (stage, stage.model / name, note) for stage in stages for name, note in read_summary(stage).model_files.items()
    ]
    for stage, file, note in expected:
        if not file.is_file():
            raise _changed(stage, file, "it is missing", f"{note.bytes:,} bytes")
        if (size := file.stat().st_size) != note.bytes:
            raise _changed(stage, file, f"it has {size:,} bytes", f"{note.bytes:,}")
    with _progress("verifying finished models", sum(note.bytes for _, _, note in expected)) as on_bytes:
        for stage, file, note in expected:
            found = _read_back(stage, file, note, on_bytes)
            if found != note:
                raise _changed(stage, file, f"its SHA-256 is {found.sha256}", note.sha256)


def _read_back(stage: StageDir, file: Path, note: FileNote, on_bytes: Callable[[int], None]) -> FileNote:
    try:
        return FileNote.of(file, on_bytes)
    except OSError as error:
        raise _changed(stage, file, f"it cannot be read ({error.strerror})", f"{note.bytes:,} bytes") from error


def _changed(stage: StageDir, file: Path, found: str, expected: str) -> DataError:
    return DataError(
        f"{file}: {found}, and the stage wrote {expected}; restore the file from a copy, or remove {stage.path}: the "
        f"same command then trains the stage again"
    )


@contextmanager
def _progress(title: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes read. Progress is shown only for large files."""
    if total_bytes < _SHOWN_FROM_BYTES:
        yield lambda number: None
        return
    with progress_line(f"{title} [MiB]", total_bytes // _MIB) as line:
        done = 0

        def on_bytes(number: int) -> None:
            nonlocal done
            done += number
            line.update(done // _MIB)

        yield on_bytes
