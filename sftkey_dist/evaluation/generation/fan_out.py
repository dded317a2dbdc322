"""Generation with model folders on Ray actors.

Generation is expensive and scoring is cheap, so they are separate. Generations are appended to ``generations.jsonl`` as
they arrive and are never repeated. Verdicts (``records.jsonl``) and scores (``scores.json``) are computed again from
them whenever their inputs change, such as alpha, a check, a judge, or a human label in ``review.jsonl``.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from sftkey_dist.cluster.place import place_that_reaches
from sftkey_dist.cluster.ray_errors import in_one_line
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.console import errors
from sftkey_dist.data.example import Example
from sftkey_dist.endpoint import endpoint_key, failure_name
from sftkey_dist.errors import IncompleteEvaluationError, UserError
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.generation import Generation, Generator, NoResponse
from sftkey_dist.evaluation.generation.load import load_generator
from sftkey_dist.evaluation.generation.spread import spread
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.swapped.beginning import Beginning
from sftkey_dist.evaluation.swapped.completion import AnswersTokens, complete
from sftkey_dist.models.accelerator import hide_unless_reserved, release_cached_memory
from sftkey_dist.run_dir import EvaluationDir
from sftkey_dist.run_dir.artifacts.evaluation import GENERATIONS, GenerationRecord
from sftkey_dist.run_dir.artifacts.swapped import ContinuationRecord

_VLLM_PROMPTS = 512
_ANYWHERE: dict[str, object] = {
    "scheduling_strategy": "DEFAULT",  # not within the place that Ray Tune holds for the driver of a trial
    "max_restarts": 2,
    "max_task_retries": 2,
}

_UNREACHABLE = "APIConnectionError"

Key = tuple[str, str]
"""Test set and id of an example."""

Progress = Callable[[int], None]
"""Called with the number of examples that are done."""


class EvaluationPool:
    """Ray actors that generate. They run until the pool is closed, and load a model when they first need it."""

    def __init__(self, cluster: ClusterConfig, settings: EvaluationConfig, num_actors: int) -> None:
        server = settings.endpoint
        key = endpoint_key(server) if server else ""
        options = _options_of_client(server.url) if server else options_of_actor(cluster, settings)
        self._actors = [
            _EvaluationActor.options(**options).remote(cluster, key)  # type: ignore[attr-defined]
            for _ in range(num_actors)
        ]

    def __enter__(self) -> "EvaluationPool":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def generate(self, job: EvaluationJob, examples: Sequence[Example], folder: Path, progress: Progress) -> None:
        """Generate responses to all examples that have none yet.

        Chunks are formed from the whole test set, so that a resumed evaluation has the same batches and padding as an
        uninterrupted one.

        Args:
            job: the model folder and how to evaluate it.
            examples: the test set.
            folder: folder of the generations. Its name contains ``generation_digest``, so its content was generated
                with the same settings.
            progress: called with the number of examples that have been generated.

        Raises:
            IncompleteEvaluationError: an actor failed, or a server did not answer every prompt. The responses that
                arrived are kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        journal = EvaluationDir(folder).generations
        GENERATIONS.keep(journal)
        known = _known_keys(folder)
        todo = [
            chunk
            for chunk in in_batches(_by_length(examples), chunk_size(job.settings))
            if any(_key(example) not in known for example in chunk)
        ]
        done, failures = len(examples) - sum(map(len, todo)), list[str]()
        progress(done)
        for records, reasons in self.results(lambda actor, chunk: actor.generate.remote(job, chunk), todo):
            GENERATIONS.append(journal, [record for record in records if record.key not in known])
            failures += reasons
            done += len(records) + len(reasons)
            progress(done)
            if not records and all(failure_name(reason) == _UNREACHABLE for reason in reasons):
                raise IncompleteEvaluationError(
                    f"none of {len(reasons)} prompts in a row reached the server, so that no more were sent "
                    f"({_counted(failures)}); responses are kept: run the same command again when the server answers"
                )
        if failures:
            raise IncompleteEvaluationError(
                f"{len(failures)} of {len(examples)} prompts got no response ({_counted(failures)}); the others are "
                f"kept: run the same command again"
            )

    def results(self, call: Callable[[Any, Any], Any], chunks: Sequence[Any]) -> Iterator[Any]:
        """The results of a call of an actor for each chunk, in order of completion.

        Raises:
            UserError: an actor raised it.
            IncompleteEvaluationError: an actor's libraries failed, or the actor was lost.
        """
        return _errors_named(spread(self._actors, call, chunks))


def options_of_actor(cluster: ClusterConfig, settings: EvaluationConfig) -> dict[str, object]:
    """Ray options of an actor that loads a model: its resources, and how often it is restarted."""
    return {
        "num_cpus": cluster.cpus_per_worker,
        "num_gpus": settings.gpus_per_model or cluster.gpus_per_worker,
        "runtime_env": {"env_vars": cluster.environment},
        **_ANYWHERE,
    }


def _options_of_client(url: str) -> dict[str, object]:
    """Ray options of an actor that asks a server."""
    return {**_ANYWHERE, "num_cpus": 0, **place_that_reaches(url)}


def _counted(failures: Sequence[str]) -> str:
    """The failures with their counts, and the server's message at the first one of each kind."""
    counts = Counter(map(failure_name, failures))
    first = {failure_name(failure): failure for failure in reversed(failures)}
    return "; ".join(f"{first[name]}: {count}" for name, count in counts.items())


def num_actors(settings: EvaluationConfig, num_workers: int) -> int:
    """Number of generation actors. A server is asked by a single actor, so that its limits hold."""
    return 1 if settings.endpoint else num_workers


def chunk_size(settings: EvaluationConfig) -> int:
    """Number of prompts per call: enough to keep a server busy, and many for vLLM, which does its own batching."""
    if settings.endpoint:
        return max(settings.batch_size, 4 * settings.endpoint.concurrency)
    return _VLLM_PROMPTS if settings.backend == "vllm" else settings.batch_size


def has_generations(examples: Sequence[Example], folder: Path) -> bool:
    """Whether all examples have generations."""
    return {_key(example) for example in examples} <= _known_keys(folder)


def read_generations(folder: Path) -> dict[Key, list[Generation]]:
    """The generations of each example, by test set and id, in the order of the samples."""
    return {record.key: list(record.samples) for record in GENERATIONS.read(EvaluationDir(folder).generations)}


def _known_keys(folder: Path) -> set[Key]:
    return {record.key for record in GENERATIONS.read(EvaluationDir(folder).generations)}


def _key(example: Example) -> Key:
    """Two test sets may use the same ids."""
    return example.data_set, example.id


def _errors_named(results: Iterator[Any]) -> Iterator[Any]:
    """The results. What an actor raised, and its loss, is raised again as one line; see `EvaluationPool.results`."""
    try:
        yield from results
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        said = in_a_line(f"{type(error.cause).__name__}: {error.cause}")
        remedy = "lower evaluation.batch_size or raise evaluation.gpus_per_model; " if "memory" in said.lower() else ""
        if not remedy:
            errors.print(str(error), markup=False, soft_wrap=True)  # with its traceback: it may be a fault of ours
        raise IncompleteEvaluationError(f"{said}; {remedy}what was generated is kept") from error
    except ray.exceptions.RayError as error:
        raise IncompleteEvaluationError(
            f"an actor was lost ({in_one_line(error)}); what was generated is kept"
        ) from error


def _by_length(examples: Sequence[Example]) -> list[Example]:
    """The examples by decreasing length, so that the slowest ones do not run last while other actors are idle."""
    return sorted(examples, key=lambda example: len(example.prompt), reverse=True)


@ray.remote
class _EvaluationActor:
    """Keeps one model loaded."""

    def __init__(self, cluster: ClusterConfig, key: str) -> None:
        hide_unless_reserved(cluster.gpus_per_worker)
        torch.set_num_threads(cluster.cpus_per_worker)
        self._key = key
        self._model: Mapping[str, str] = {}
        self._generator: Generator | None = None

    def generate(self, job: EvaluationJob, examples: Sequence[Example]) -> tuple[list[GenerationRecord], list[str]]:
        """The records of the responses, and the reasons why a server did not give others."""
        responses = self._loaded(job).generate(examples, job.decoding)
        records, reasons = [], []
        for example, response in zip(examples, responses, strict=True):
            if isinstance(response, NoResponse):
                reasons.append(response.reason)
            else:
                records.append(GenerationRecord(example.data_set, example.id, tuple(response)))
        return records, reasons

    def complete(self, job: EvaluationJob, beginnings: Sequence[Beginning]) -> list[ContinuationRecord]:
        """The records of the continued beginnings."""
        generator = self._loaded(job)
        if not isinstance(generator, AnswersTokens):
            raise AssertionError("the configuration refuses servers, which do not take every sequence of tokens")
        return complete(generator, beginnings, job)

    def _loaded(self, job: EvaluationJob) -> Generator:
        model = {"folder": job.model_dir, "strategy": job.strategy}
        if self._generator is None or self._model != model:
            self._generator = None
            release_cached_memory()  # free the old model before the new one is loaded
            self._generator = load_generator(
                job.settings, self._key, Path(job.model_dir), job.prompt, job.trust_remote_code
            )
            self._model = model
        return self._generator
