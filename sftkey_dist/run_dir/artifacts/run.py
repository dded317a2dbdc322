"""The files in a run's own folder, as far as they are read back. Paths in them must stay inside the folder."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from sftkey_dist.contract import ResponseContract
from sftkey_dist.errors import DataError
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile, absent_with

_RENEWED = "restore it from a copy, or remove it: `sftkey run` with the run's configuration writes it again"
_PREPARED = "run `sftkey prepare` with the run's configuration, which writes it again"
_TRACKED_ANEW = "restore it from a copy, or remove it: further results are then tracked as new runs"


def _stays_below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} points outside the run's folder")
    return path


PathInRun = Annotated[str, AfterValidator(_stays_below)]
"""A path relative to the run's folder, and inside it."""


@dataclass(frozen=True)
class StageEntry:
    """A stage of a strategy: its name, its folder, and the strategy that trains it, if that is another one."""

    name: str
    path: PathInRun
    shared_with: str | None


@dataclass(frozen=True)
class StrategyEntry:
    """The stages, the evaluation, and the measurement with swapped reasoning of a strategy."""

    form: str
    dataset: str
    key_segments: list[str]
    mlflow_run_id: str | None
    stages: Annotated[list[StageEntry], Field(min_length=1)]
    evaluation: PathInRun | None
    swapped_reasoning: PathInRun | None = field(default=None, metadata=absent_with("swapped_reasoning"))


@dataclass(frozen=True)
class WandbRun:
    """A run in W&B.

    Attributes:
        id: its id in the project.
        next_steps: the step after the last one that was sent, by metric.
        summary: the metrics without a step that were sent.
        is_finished: whether everything was sent.
    """

    id: str
    next_steps: dict[str, int] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    is_finished: bool = False


@dataclass(frozen=True)
class ModelSetting:
    """`model` of a configuration. ``path`` is None for an embedded model."""

    path: str | None = None


@dataclass(frozen=True)
class SourceSetting:
    """A source of a configuration."""

    adapter: str


@dataclass(frozen=True)
class DataSettings:
    """`data` of a configuration."""

    train: tuple[SourceSetting, ...] = ()
    test: tuple[SourceSetting, ...] = ()


@dataclass(frozen=True)
class EvaluationSettings:
    """`evaluation` of a configuration. ``limit`` is the maximum number of rows of each test set."""

    limit: int | None = None


@dataclass(frozen=True)
class Settings:
    """config.json, as far as it is read back."""

    model: ModelSetting = ModelSetting()
    data: DataSettings = DataSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    contract: ResponseContract = field(default_factory=ResponseContract)


@dataclass(frozen=True)
class DroppedCount:
    """How many rows of a set were dropped for one reason."""

    reason: str
    count: int


@dataclass(frozen=True)
class SetReport:
    """A set in data_report.json.

    Attributes:
        summary: the report in one line.
        name: of the set, as `train_set_name` gives it for a form of the training set.
        kept: number of rows that were kept.
        dropped: numbers of rows that were not, by reason.
        answer_checks: of a test set, a line that says how answers are compared with their references.
    """

    summary: str
    name: str | None = field(default=None, metadata=absent_with("name"))
    kept: int | None = field(default=None, metadata=absent_with("kept"))
    dropped: tuple[DroppedCount, ...] | None = field(default=None, metadata=absent_with("dropped"))
    answer_checks: str | None = field(default=None, metadata=absent_with("answer_checks"))


@dataclass(frozen=True)
class PreparedData:
    """data_report.json, as far as a report reads it."""

    sets: tuple[SetReport, ...] = ()
    test: SetReport | None = None


@dataclass(frozen=True)
class NotedRow:
    """A line of data_rows.jsonl: a row that was dropped, or that a person should look at.

    Attributes:
        set: the set in data_report.json that it belongs to.
        row: its origin.
        reason: why it was dropped; `repeats` or `other_response` for a row that was kept.
        detail: what is wrong with it, or the row that it repeats.
    """

    set: str
    row: str
    reason: str
    detail: str


STRATEGIES = JsonFile(dict[str, StrategyEntry], _RENEWED)
SETTINGS = JsonFile(Settings, _PREPARED)
EVERY_SETTING = JsonFile(dict[str, object], _PREPARED)
"""config.json, whole."""
DATA_REPORT = JsonFile(PreparedData, _PREPARED)
DATA_ROWS = Journal(NotedRow, _PREPARED)
ENVIRONMENT = JsonFile(dict[str, str], _PREPARED)
RUN_IDS = JsonFile(dict[str, str], _TRACKED_ANEW)
WANDB_RUNS = JsonFile(dict[str, WandbRun], _TRACKED_ANEW)


def train_set_name(form: str) -> str:
    """Name of the training set in one form of the responses, such as `tagged`."""
    return f"train ({form})"


def read_strategies(run: RunDir) -> dict[str, StrategyEntry]:
    """The strategies of a run, by name.

    Raises:
        DataError: nothing is trained there, the file is damaged, or a path in it points outside the run's folder.
    """
    if not run.strategies.is_file():
        if run.study.is_file():
            raise DataError(f"{run.path}: it is a study; run `sftkey results` with it, or name runs in it")
        if run.path.is_file():
            raise DataError(f"{run.path}: it is a file; give the run directory, the run_dir of a configuration")
        if any(stage.beginning.is_file() for stage in run.stages()):
            raise DataError(
                f"{run.path}: no strategy is trained to its end yet; `sftkey watch` shows how far the run is, and the "
                f"command that began it continues it"
            )
        if runs := sorted(file.parent.name for file in run.path.glob("*/strategies.json")):
            raise DataError(f"{run.path}: it is a folder of runs; give one or more of them: {', '.join(runs)}")
        missing = "no trained strategies there" if run.path.is_dir() else "no such folder"
        raise DataError(f"{run.path}: {missing}; run `sftkey run` with this run_dir first")
    return STRATEGIES.read(run.strategies)
