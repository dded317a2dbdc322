"""What the pipeline tells whoever keeps track of runs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
RUN_DIR_TAG = "sftkey.run_dir"
"""Tag of every run: the run directory that it tracks."""


@dataclass(frozen=True)
class DataSetNote:
    """A data set by name and digest.

    Attributes:
        name: as tables call it.
        digest: short, of its content.
        context: ``training`` or ``testing``.
        place: file or hub id.
        num_rows: examples; None where all of the place are taken.
    """

    name: str
    digest: str
    context: str
    place: str
    num_rows: int | None


class Tracker(Protocol):
    """What the pipeline tells whoever keeps track."""

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str | None:
        """Start the run known as ``key``, or continue it; returns its id."""
        ...

    def log_params(self, run_id: str | None, params: Mapping[str, object]) -> None:
        """Nested values are flattened with dots."""
        ...

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """Metrics with their ``step``; nested values are flattened with slashes."""
        ...

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """Metrics without a step."""
        ...

    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """A file."""
        ...

    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int | None:
        """Log the metrics of those records that the run lacks, each once.

        Returns:
            How many there were; None when the store did not answer.
        """
        ...

    def log_table(self, run_id: str | None, columns: Mapping[str, Sequence[object]], file: str) -> None:
        """A table that MLflow shows, under a file name that ends in .json."""
        ...

    def log_data_set(self, run_id: str | None, data_set: DataSetNote) -> None:
        """What a run was trained or tested on."""
        ...

    def log_model(self, run_id: str | None, folder: Path) -> None:
        """A model folder with its card as an MLflow model that `mlflow.transformers.load_model` loads; once a run."""
        ...

    def watching_system(self, run_id: str | None) -> AbstractContextManager[None]:
        """Log the driver machine's load and memory while the block lasts."""
        ...

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """The step after the last at which the run has any of the metrics."""
        ...

    def end_run(self, run_id: str | None, status: RunStatus = "FINISHED") -> None:
        """Mark how the run ended."""
        ...

    def has_finished(self, key: str) -> bool:
        """Whether the run known as ``key`` was logged to its end."""
        ...


class NullTracker:
    """Keeps no track: the run directory alone holds the metrics."""

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str | None:
        """See Tracker."""

    def log_params(self, run_id: str | None, params: Mapping[str, object]) -> None:
        """See Tracker."""

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """See Tracker."""

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """See Tracker."""

    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """See Tracker."""

    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int | None:
        """See Tracker."""
        return 0

    def log_table(self, run_id: str | None, columns: Mapping[str, Sequence[object]], file: str) -> None:
        """See Tracker."""

    def log_data_set(self, run_id: str | None, data_set: DataSetNote) -> None:
        """See Tracker."""

    def log_model(self, run_id: str | None, folder: Path) -> None:
        """See Tracker."""

    def watching_system(self, run_id: str | None) -> AbstractContextManager[None]:
        """See Tracker."""
        return nullcontext()

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """See Tracker."""
        return 0

    def end_run(self, run_id: str | None, status: RunStatus = "FINISHED") -> None:
        """See Tracker."""

    def has_finished(self, key: str) -> bool:
        """See Tracker."""
        return True
