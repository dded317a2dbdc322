"""The small files of a run as they are read back: what must be in them, and where their paths may lead."""

from pathlib import PurePosixPath
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from sftkey_dist.files import FileNote, read_json_as
from sftkey_dist.run_dir import RunDir, StageDir

_RENEWED = "restore it from a copy, or remove it: `sftkey run` with the run's configuration writes it anew"
_TRAINED_AGAIN = "restore it from a copy, or remove its folder: the same command then trains the stage again"


def _stays_below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} leads out of the run's folder")
    return path


PathInRun = Annotated[str, AfterValidator(_stays_below)]
"""Relative to the run's folder, and below it."""


class StageEntry(TypedDict):
    """A stage of a strategy: its name, its folder, and the strategy that trains it when that is another one."""

    name: str
    path: PathInRun
    shared_with: str | None


class StrategyEntry(TypedDict):
    """What a strategy was trained and evaluated by."""

    form: str
    dataset: str
    key_segments: list[str]
    mlflow_run_id: str | None
    stages: Annotated[list[StageEntry], Field(min_length=1)]
    evaluation: PathInRun | None


class StageInputs(TypedDict):
    """What a stage's digest stands for, as far as it is read back."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    weights: list[float]


class StageSummary(TypedDict):
    """What a stage was and cost."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    inputs: StageInputs
    steps: int
    tokens: int
    loss_tokens: int
    train_seconds: float
    world_size: int
    digest: NotRequired[str]
    rounding: NotRequired[dict[str, Any] | None]
    gain: NotRequired[float | None]
    model_files: NotRequired[dict[PathInRun, FileNote]]


_STRATEGIES = TypeAdapter(dict[str, StrategyEntry])
_SUMMARY = TypeAdapter(StageSummary)


def read_strategies(run: RunDir) -> dict[str, StrategyEntry]:
    """The strategies of a run, by name.

    Raises:
        DataError: the file is damaged, or a path in it leads out of the run's folder.
    """
    return read_json_as(run.strategies, _STRATEGIES, _RENEWED)


def read_summary(stage: StageDir) -> StageSummary:
    """What a finished stage was and cost.

    Raises:
        DataError: the file is damaged.
    """
    return read_json_as(stage.summary, _SUMMARY, _TRAINED_AGAIN)
