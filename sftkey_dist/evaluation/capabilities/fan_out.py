"""Distributes models and tasks over Ray actors; each result is written as it arrives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import CapabilitiesConfig, EvaluationConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ModelError, UserError
from sftkey_dist.evaluation.capabilities.harness import Harness
from sftkey_dist.evaluation.generation.fan_out import options_of_actor
from sftkey_dist.evaluation.generation.spread import spread
from sftkey_dist.models.accelerator import hide_unless_reserved, release_cached_memory
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.run_dir.artifacts.capabilities import CAPABILITY, CapabilityResult

_SECONDS_BEFORE_A_SECOND_ACTOR = 3600.0
"""Some tasks take a hundred times as long as others, so a task that is late is not a sign of an actor that hangs."""


@dataclass(frozen=True)
class CapabilityJob:
    """A task for a model.

    Attributes:
        model: name of the model in messages.
        model_dir: its folder.
        task: name of the task.
        settings: how tasks are solved.
        trust_remote_code: see `model.trust_remote_code`.
        gpus_per_model: see `EvaluationConfig`.
        digest: see `CapabilityResult`.
        weights_digest: of a stage's model once it is trained.
        file: where the result is written.
    """

    model: str
    model_dir: Path
    task: str
    settings: CapabilitiesConfig
    trust_remote_code: bool
    gpus_per_model: int | None
    digest: str
    weights_digest: str | None
    file: Path

    @property
    def is_done(self) -> bool:
        """Whether there is a result, and the model still has the weights that it was measured with."""
        if not self.file.is_file():
            return False
        measured = CAPABILITY.read(self.file).weights_digest
        return measured is None or self.weights_digest in (None, measured)


@dataclass(frozen=True)
class _Outcome:
    """The result of a job, or why there is none."""

    job: CapabilityJob
    result: CapabilityResult | None
    problem: str = ""


def measure_all(
    jobs: Sequence[CapabilityJob],
    cluster: ClusterConfig,
    evaluation: EvaluationConfig,
    num_actors: int,
    on_done: Callable[[int], None],
) -> list[str]:
    """Do all jobs on the connected cluster. One that fails does not stop the others.

    Args:
        jobs: the jobs, those of a model one after another.
        cluster: resources of an actor.
        evaluation: accelerators of an actor.
        num_actors: maximum number of actors.
        on_done: called with the number of jobs that are done.

    Returns:
        A line for every task that failed, with the models for which it did.
    """
    options = options_of_actor(cluster, evaluation)

    def start() -> Any:
        return _CapabilityActor.options(**options).remote(cluster)  # type: ignore[attr-defined]

    def on_loss(actor: Any, job: CapabilityJob, error: Exception) -> tuple[Any, _Outcome]:
        """A new actor for the other jobs, because Ray has restarted this one as often as it may."""
        ray.kill(actor)
        actors[actors.index(actor)] = new = start()
        return new, _Outcome(job, None, _lost(error))

    actors = [start() for _ in range(min(num_actors, len(jobs)))]
    problems = dict.fromkeys(jobs, "")
    open_jobs = set(jobs)
    try:
        outcomes = spread(
            actors, lambda actor, job: actor.measure.remote(job), jobs, _SECONDS_BEFORE_A_SECOND_ACTOR, on_loss
        )
        for number, outcome in enumerate(outcomes, start=1):
            open_jobs.remove(outcome.job)
            if outcome.result is None:
                problems[outcome.job] = outcome.problem
            else:
                CAPABILITY.write(outcome.job.file, replace(outcome.result, weights_digest=outcome.job.weights_digest))
            on_done(number)
    except ray.exceptions.RayError as error:
        problems |= dict.fromkeys(open_jobs, _lost(error))
    finally:
        for actor in actors:
            ray.kill(actor)
    return _in_lines(problems)


def _lost(error: Exception) -> str:
    return f"its process was lost ({in_a_line(error)})"


def _in_lines(problems: dict[CapabilityJob, str]) -> list[str]:
    """One line per task and problem; usually a task fails for all models alike."""
    models: dict[tuple[str, str], list[str]] = {}
    for job, problem in problems.items():
        if problem:
            models.setdefault((job.task, problem), []).append(job.model)
    return [
        f"capabilities: task {task} of {', '.join(of)}: {problem}; the same command tries again"
        for (task, problem), of in models.items()
    ]


@ray.remote
class _CapabilityActor:
    """Keeps one model loaded."""

    def __init__(self, cluster: ClusterConfig) -> None:
        hide_unless_reserved(cluster.gpus_per_worker)
        torch.set_num_threads(cluster.cpus_per_worker)
        self._model_dir: Path | None = None
        self._harness: Harness | None = None

    def measure(self, job: CapabilityJob) -> _Outcome:
        """The result, or why there is none: whatever fails for one model must not stop the others."""
        try:
            return _Outcome(job, self._loaded(job).measure(job.task, job.digest))
        except UserError as error:
            return _Outcome(job, None, str(error))

    def _loaded(self, job: CapabilityJob) -> Harness:
        """
        Raises:
            ModelError: the model cannot be loaded.
        """
        if self._harness is None or self._model_dir != job.model_dir:
            self._harness = None
            release_cached_memory()  # free the old model before the new one is loaded
            try:
                self._harness = Harness(job.model_dir, job.settings, job.trust_remote_code, job.gpus_per_model)
            except UserError:
                raise
            except Exception as error:  # libraries that load models raise unrelated classes
                raise ModelError(f"the model cannot be loaded ({loading_problem(error)})") from error
            self._model_dir = job.model_dir
        return self._harness
