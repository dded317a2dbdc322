"""Provenance of a run's results: model, data, settings, versions, and the settings in which runs differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.config.paths import is_local_model
from sftkey_dist.report.run_names import distinct_runs, names_of_runs
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.run import DATA_REPORT, ENVIRONMENT, EVERY_SETTING, SETTINGS, PreparedData


@dataclass(frozen=True)
class RunFacts:
    """What one run was.

    Attributes:
        name: what tells it apart from the others.
        model: base model, None for an embedded one.
        is_local_model: whether it is in a local folder, whose path says nothing to others.
        adapters: of the test sets.
        settings: the configuration, flattened.
        environment: packages, commit and machine that it ran with.
        data: lines about each set.
    """

    name: str
    model: str | None
    is_local_model: bool
    adapters: set[str]
    settings: dict[str, str]
    environment: dict[str, str]
    data: tuple[str, ...]


def read_facts(run_dirs: Sequence[Path]) -> list[RunFacts]:
    """The facts of runs, from their folders."""
    distinct = distinct_runs(run_dirs)
    return [_read(RunDir(run), name) for run, name in zip(distinct, names_of_runs(distinct), strict=True)]


def settings_that_differ(facts: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    """The settings that differ between runs, with their value in each run."""
    names = dict.fromkeys(name for fact in facts for name in fact.settings)
    values = [(name, [fact.settings.get(name, "") for fact in facts]) for name in names if name != "run_dir"]
    return [(name, of) for name, of in values if len(set(of)) > 1]


def _read(run: RunDir, name: str) -> RunFacts:
    config = EVERY_SETTING.read(run.config) if run.config.is_file() else {}
    settings = SETTINGS.of(str(run.config), config)
    report = DATA_REPORT.read(run.data_report) if run.data_report.is_file() else PreparedData()
    return RunFacts(
        name=name,
        model=settings.model.path,
        is_local_model=is_local_model(settings.model.path or ""),
        adapters={source.adapter for source in settings.data.test or settings.data.train},
        settings=flattened(config),
        environment=ENVIRONMENT.read(run.environment) if run.environment.is_file() else {},
        data=tuple(_data(report)),
    )


def _data(report: PreparedData) -> Iterator[str]:
    """Lines about each set, and about how answers to the test set are compared."""
    for one in (*report.sets, *([report.test] if report.test else [])):
        yield one.summary
        if one.answer_checks:
            yield one.answer_checks


def flattened(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted name."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return flat
