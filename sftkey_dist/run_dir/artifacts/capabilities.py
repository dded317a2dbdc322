"""The files of the capability check: a result for each model and task, and which of them belong to the run."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.kinds import JsonFile, Measured, absent_with
from sftkey_dist.run_dir.artifacts.run import PathInRun

_MEASURED_AGAIN = "remove it and evaluate again"


@dataclass(frozen=True)
class CapabilityMetric:
    """A metric of a task.

    Attributes:
        name: name of the metric; with several readings of an output also the harness's name of the reading, as in
            ``exact_match/strict-match``. If it is no mean, each task of a group has one, as in ``cola/mcc``.
        mean: mean over the documents, or what the harness makes of them in place of a mean, such as a perplexity.
        standard_error: of the mean; nan if it is no mean, or over a single document.
        higher_is_better: None if the task does not say it.
        values: value of each document, by its task, number and digest; empty if the metric is no mean over documents.
    """

    name: str
    mean: Measured
    standard_error: Measured
    higher_is_better: bool | None
    values: dict[str, Measured]


@dataclass(frozen=True)
class CapabilityResult:
    """What a model can do in a task, or in a group of tasks.

    Attributes:
        task: name in the configuration.
        digest: digest of the model and of everything else that the result depends on, except the batch size.
        harness_version: version of lm-evaluation-harness.
        task_versions: version of the task, or of each task of a group.
        num_documents: number of documents.
        metrics: its metrics, in the order of the task.
        weights_digest: digest of the weights, of a stage's model.
    """

    task: str
    digest: str
    harness_version: str
    task_versions: dict[str, str]
    num_documents: int
    metrics: tuple[CapabilityMetric, ...]
    weights_digest: str | None = field(default=None, metadata=absent_with("weights_digest"))


@dataclass(frozen=True)
class CapabilityFiles:
    """capabilities.json: the files with the results of the base model, and of each strategy, by task."""

    base: dict[str, PathInRun] = field(default_factory=dict)
    strategies: dict[str, dict[str, PathInRun]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunCapabilities:
    """The results of a run: those of the base model, and those of each strategy, in the order of the configuration."""

    base: tuple[CapabilityResult, ...] = ()
    strategies: dict[str, tuple[CapabilityResult, ...]] = field(default_factory=dict)


CAPABILITY = JsonFile(CapabilityResult, _MEASURED_AGAIN)
CAPABILITY_FILES = JsonFile(CapabilityFiles, _MEASURED_AGAIN)


def result_file(run: RunDir, task: str, digest: str) -> Path:
    """The file of a result, named by the task and by the digest of what the result depends on."""
    return run.capabilities.with_suffix("") / f"{quote(task, safe='')}-{digest[:12]}.json"


def read_capabilities(run: RunDir) -> RunCapabilities:
    """The results that belong to a run; none if it measures no capabilities.

    Raises:
        DataError: a file is missing or damaged.
    """
    if not run.capabilities.is_file():
        return RunCapabilities()
    files = CAPABILITY_FILES.read(run.capabilities)

    def results(by_task: dict[str, PathInRun]) -> tuple[CapabilityResult, ...]:
        return tuple(CAPABILITY.read(run.path / path) for path in by_task.values())

    return RunCapabilities(results(files.base), {name: results(of) for name, of in files.strategies.items()})
