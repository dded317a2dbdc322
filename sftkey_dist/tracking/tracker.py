"""The interface of trackers, which record runs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
RUN_DIR_TAG = "sftkey.run_dir"
"""Tag of every run: the run directory that it tracks."""
STRATEGY_TAG = "sftkey.strategy"
"""Tag of the run of a strategy, and of the runs of its stages and its evaluation."""
RUN_TAG = "sftkey.run"
"""Tag of every run: the name of the run directory, within a study with its variant."""
SEED_TAG = "sftkey.seed"
"""Tag of every run: the seed of its configuration."""
STAGE_TAG = "sftkey.stage"
"""Tag of the run of a stage: the name of the stage."""


@dataclass(frozen=True)
class DataSetNote:
    """Reference to a data set.

    Attributes:
        name: name in tables.
        digest: short digest of its content.
        context: ``training`` or ``testing``.
        place: file or hub id.
        num_rows: number of examples; None for all rows of the source.
    """

    name: str
    digest: str
    context: str
    place: str
    num_rows: int | None


@dataclass(frozen=True)
class ModelNote:
    """Reference to a model.

    Attributes:
        folder: folder of the model.
        params: what distinguishes it from other models.
    """

    folder: Path
    params: Mapping[str, str]


@dataclass(frozen=True)
class MeasuredScores:
    """Scores of a model.

    Attributes:
        values: scores by name.
        data_set: the data set on which they were measured; None for scores over several of them.
    """

    values: Mapping[str, float]
    data_set: DataSetNote | None


class Tracker(Protocol):
    """Records runs, their parameters, metrics and files."""

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str | None:
        """Start the run with this key, or continue it, and return its id."""
        ...

    def mlflow_run_id(self, run_id: str | None) -> str | None:
        """The id under which MLflow has a run; None if it does not have the run."""
        ...

    def log_params(self, run_id: str | None, params: Mapping[str, object]) -> None:
        """Log parameters. Nested keys are joined with dots."""
        ...

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """Log metrics with their ``step``. Nested keys are joined with slashes."""
        ...

    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """Log metrics without a step."""
        ...

    def log_artifact(self, run_id: str | None, path: Path) -> None:
        """Log a file."""
        ...

    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int | None:
        """Log the metrics that the run lacks, each once.

        Returns:
            The number of metrics that were missing; None if the store did not answer.
        """
        ...

    def log_table(self, run_id: str | None, columns: Mapping[str, Sequence[object]], file: str) -> None:
        """Log a table that MLflow displays, with a file name that ends in .json. It replaces one of the same name."""
        ...

    def log_data_set(self, run_id: str | None, data_set: DataSetNote) -> None:
        """Log a data set that a run was trained or tested on."""
        ...

    def note_model(self, run_id: str | None, model: ModelNote) -> None:
        """Note the model that a run made, once per run. Its files stay where they are."""
        ...

    def log_model(self, run_id: str | None, folder: Path, trust_remote_code: bool = False) -> None:
        """Upload the files of a run's model, once per run, so that `mlflow.transformers.load_model` can load it.

        Its own code is run only if it is trusted.
        """
        ...

    def log_scores(self, run_id: str | None, scores: Sequence[MeasuredScores], model_of: str | None) -> None:
        """Log the scores of the model that another run made, and the data sets that they were measured on."""
        ...

    def watching_system(self, run_id: str | None) -> AbstractContextManager[None]:
        """Log the load and memory of the driver's machine while the block runs."""
        ...

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """The step after the last one for which the run has any of the metrics."""
        ...

    def end_run(self, run_id: str | None, status: RunStatus = "FINISHED") -> None:
        """End the run with a status."""
        ...

    def has_finished(self, key: str) -> bool:
        """Whether the run with this key was logged completely."""
        ...


class NullTracker:
    """Records nothing. The run directory still contains all metrics."""

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str | None:
        """See Tracker."""

    def mlflow_run_id(self, run_id: str | None) -> str | None:
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

    def note_model(self, run_id: str | None, model: ModelNote) -> None:
        """See Tracker."""

    def log_model(self, run_id: str | None, folder: Path, trust_remote_code: bool = False) -> None:
        """See Tracker."""

    def log_scores(self, run_id: str | None, scores: Sequence[MeasuredScores], model_of: str | None) -> None:
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
