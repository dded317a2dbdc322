"""What lies in a run's own folder, as far as it is read back: what must be in it, and where paths may lead."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from sftkey_dist.contract import ResponseContract
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.kinds import JsonFile

_RENEWED = "restore it from a copy, or remove it: `sftkey run` with the run's configuration writes it anew"
_PREPARED = "run `sftkey prepare` with the run's configuration, which writes it anew"
_TRACKED_ANEW = "restore it from a copy, or remove it: what comes next is tracked as new runs"


def _stays_below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} leads out of the run's folder")
    return path


PathInRun = Annotated[str, AfterValidator(_stays_below)]
"""Relative to the run's folder, and below it."""


@dataclass(frozen=True)
class StageEntry:
    """A stage of a strategy: its name, its folder, and the strategy that trains it when that is another one."""

    name: str
    path: PathInRun
    shared_with: str | None


@dataclass(frozen=True)
class StrategyEntry:
    """What a strategy was trained and evaluated by."""

    form: str
    dataset: str
    key_segments: list[str]
    mlflow_run_id: str | None
    stages: Annotated[list[StageEntry], Field(min_length=1)]
    evaluation: PathInRun | None


@dataclass(frozen=True)
class ModelSetting:
    """`model` of a configuration; ``path`` is None for an embedded one."""

    path: str | None = None


@dataclass(frozen=True)
class SourceSetting:
    """A source of a configuration."""

    adapter: str


@dataclass(frozen=True)
class DataSettings:
    """`data` of a configuration."""

    test: tuple[SourceSetting, ...] = ()


@dataclass(frozen=True)
class Settings:
    """config.json, as far as a report reads it."""

    model: ModelSetting = ModelSetting()
    data: DataSettings = DataSettings()
    contract: ResponseContract = field(default_factory=ResponseContract)


@dataclass(frozen=True)
class SetReport:
    """A set in data_report.json; ``summary`` is the report in a line."""

    summary: str


@dataclass(frozen=True)
class PreparedData:
    """data_report.json, as far as a report reads it."""

    sets: tuple[SetReport, ...] = ()
    test: SetReport | None = None


STRATEGIES = JsonFile(dict[str, StrategyEntry], _RENEWED)
SETTINGS = JsonFile(Settings, _PREPARED)
EVERY_SETTING = JsonFile(dict[str, object], _PREPARED)
"""config.json, whole."""
DATA_REPORT = JsonFile(PreparedData, _PREPARED)
ENVIRONMENT = JsonFile(dict[str, str], _PREPARED)
RUN_IDS = JsonFile(dict[str, str], _TRACKED_ANEW)


def read_strategies(run: RunDir) -> dict[str, StrategyEntry]:
    """The strategies of a run, by name.

    Raises:
        DataError: the file is damaged, or a path in it leads out of the run's folder.
    """
    return STRATEGIES.read(run.strategies)
