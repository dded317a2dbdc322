"""Runs tasks of lm-evaluation-harness (the package `lm_eval`) on a model's folder, in this process.

The harness is loaded where it is used: it takes seconds, and is an optional dependency.
"""

import importlib.metadata
import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import replace
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftkey_dist.config.evaluation import CapabilitiesConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.run_dir.artifacts.capabilities import CapabilityMetric, CapabilityResult
from sftkey_dist.suggestion import closest_name

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

_ONE_READING = "none"
"""The harness's name of a filter that leaves outputs as they are."""
_SAME = 1e-9


def require_tasks(settings: CapabilitiesConfig) -> None:
    """
    Raises:
        ConfigError: the harness is not installed, there is no such folder or a file in it cannot be read, or a task
            is unknown.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "evaluation.capabilities: lm-evaluation-harness is not installed; install it with pip install "
            "'sftkey_dist[capabilities]', or leave the section out"
        )
    if settings.task_dir is not None and not settings.task_dir.is_dir():
        raise ConfigError(f"evaluation.capabilities.task_dir: {settings.task_dir} is not a folder")
    known = _known_tasks(settings)
    for name in settings.tasks:
        if name not in known:
            meant = closest_name(name, known)
            hint = f"did you mean {meant}?" if meant else "`lm-eval ls tasks` lists those of the harness"
            own = f", and no valid file of {settings.task_dir} defines it" if settings.task_dir else ""
            raise ConfigError(f"evaluation.capabilities.tasks: lm-evaluation-harness has no task {name}{own}; {hint}")


def _known_tasks(settings: CapabilitiesConfig) -> Sequence[str]:
    try:
        known: Sequence[str] = _task_manager(settings).all_tasks
    except Exception as error:  # the harness reads every file of the folder, and raises any class
        if settings.task_dir is None:
            raise
        raise ConfigError(
            f"evaluation.capabilities.task_dir: lm-evaluation-harness cannot read the tasks of {settings.task_dir} "
            f"({type(error).__name__}: {in_a_line(error)}); correct the YAML files there: names of tasks and groups "
            f"are text"
        ) from error
    return known


def harness_version() -> str:
    """Version of the installed harness."""
    return importlib.metadata.version("lm_eval")


@lru_cache(maxsize=1)
def _task_manager(settings: CapabilitiesConfig) -> "TaskManager":
    """The index of all tasks. That of the harness's own takes seconds, and is left out where it is not needed."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if settings.task_dir is None:
        return TaskManager()
    folder = settings.task_dir.absolute()
    own = TaskManager(include_path=folder, include_defaults=False)
    return own if set(settings.tasks) <= set(own.all_subtasks) else TaskManager(include_path=folder)


class Harness:
    """A loaded model that solves tasks."""

    def __init__(
        self, model_dir: Path, settings: CapabilitiesConfig, trust_remote_code: bool, num_gpus: int | None = None
    ) -> None:
        """
        Args:
            model_dir: Hugging Face folder; the model is loaded in the precision that it is stored in.
            settings: which tasks there are, and how they are solved.
            trust_remote_code: see `model.trust_remote_code`.
            num_gpus: see `LocalGenerator`.

        Raises:
            ModelError: the model does not fit into the memory of the accelerators.
        """
        from lm_eval.models.huggingface import HFLM

        from sftkey_dist.evaluation.generation.local import load_for_inference
        from sftkey_dist.models.load import load_tokenizer

        self._settings = settings
        self._manager = _task_manager(settings)
        model, tokenizer = (
            load_for_inference(model_dir, trust_remote_code, num_gpus),
            load_tokenizer(model_dir, trust_remote_code),
        )
        self._lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size)

    def measure(self, task: str, digest: str) -> CapabilityResult:
        """Solve a task, with the harness's own seeds, so that solving it again gives the same result.

        Args:
            task: a name of `CapabilitiesConfig.tasks`.
            digest: see `CapabilityResult`.

        Raises:
            DataError: the task cannot be loaded or solved, or has no documents or no metric.
        """
        from lm_eval import simple_evaluate

        settings = self._settings
        try:
            with chdir(settings.task_dir or "."):
                found = simple_evaluate(
                    self._lm,
                    tasks=[task],
                    num_fewshot=settings.num_fewshot,
                    limit=settings.limit,
                    task_manager=self._manager,
                    bootstrap_iters=0,
                    log_samples=True,
                )
            return _result(task, digest, found)
        except DataError:
            raise
        except ConnectionError as error:
            raise DataError(
                f"its data set cannot be fetched from the hub ({in_a_line(error)}); fetch it where the hub is "
                f"reachable and set HF_DATASETS_OFFLINE=1, or write a task over local files into a folder that "
                f"evaluation.capabilities.task_dir names"
            ) from error
        except Exception as error:  # a task's templates, functions and data raise any class
            raise DataError(f"the task failed ({type(error).__name__}: {in_a_line(error)})") from error


def _result(task: str, digest: str, found: Mapping[str, Any]) -> CapabilityResult:
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = found["samples"]
    metrics = tuple(_metrics(found))
    if not metrics:
        raise DataError("the task has no metric that can be compared")
    return CapabilityResult(
        task=task,
        digest=digest,
        harness_version=harness_version(),
        task_versions={name: str(found["versions"][name]) for name in samples},
        num_documents=sum(found["n-samples"][name]["effective"] for name in samples),
        metrics=metrics,
    )


def _metrics(found: Mapping[str, Any]) -> list[CapabilityMetric]:
    """Each metric with each reading. Those of the tasks of a group are joined by their names."""
    by_metric: dict[tuple[str, str], dict[str, dict[str, object]]] = {}
    for name, samples in found["samples"].items():
        for sample in samples:
            document = f"{name} {sample['doc_id']} {sample['doc_hash'][:12]}"
            for metric in sample["metrics"]:
                of_metric = by_metric.setdefault((metric, sample["filter"]), {})
                of_metric.setdefault(name, {})[document] = sample[metric]
    return [metric for key, by_task in by_metric.items() for metric in _joined(key, by_task, found)]


def _joined(
    key: tuple[str, str], by_task: Mapping[str, Mapping[str, object]], found: Mapping[str, Any]
) -> list[CapabilityMetric]:
    """A metric over all documents, or of each task by its name if it is no mean, because means alone can be joined."""
    metric, reading = key
    aggregates = {name: float(found["results"][name][f"{metric},{reading}"]) for name in by_task}
    values = {document: value for of_task in by_task.values() for document, value in of_task.items()}
    name = metric if reading == _ONE_READING else f"{metric}/{reading}"
    higher_is_better = found["higher_is_better"][next(iter(by_task))].get(metric)
    if all(_is_mean(aggregates[task], list(of_task.values())) for task, of_task in by_task.items()):
        numbers = {document: number for document, value in values.items() if (number := _number(value)) is not None}
        each = np.array(list(numbers.values()))
        error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan
        return [CapabilityMetric(name, float(each.mean()), error, higher_is_better, numbers)]
    if len(by_task) > 1:
        of_each = {task: _joined(key, {task: values}, found) for task, values in by_task.items()}
        return [replace(metric, name=f"{task}/{metric.name}") for task, of in of_each.items() for metric in of]
    (aggregate,) = aggregates.values()
    return [CapabilityMetric(name, aggregate, math.nan, higher_is_better, {})]


def _is_mean(aggregate: float, values: Sequence[object]) -> bool:
    """Whether the harness's value of a metric is the mean of numbers that the documents have."""
    numbers = [number for value in values if (number := _number(value)) is not None]
    return len(numbers) == len(values) and math.isclose(
        float(np.mean(numbers)), aggregate, rel_tol=_SAME, abs_tol=_SAME
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, Real | np.bool_) else None
