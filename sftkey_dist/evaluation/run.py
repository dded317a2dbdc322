"""Evaluate model folders as a fan-out of Ray actors.

Generating is dear and scoring is cheap, so they are kept apart. Generations are appended to ``generations.jsonl`` as
they come and never made twice; verdicts (``records.jsonl``) and scores (``scores.json``) are made from them anew
whenever what decides them has changed, such as alpha or the answer check.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util import ActorPool

from sftkey_dist.config.schema import ClusterConfig
from sftkey_dist.data.example import Example
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.assess import Assessment, make_record
from sftkey_dist.evaluation.generate import Generation, Generator, in_batches
from sftkey_dist.evaluation.score import Scores, score_records
from sftkey_dist.files import digest_json, write_json_atomically, write_text_atomically
from sftkey_dist.journal import Record, append_records, keep_records, read_records

_GENERATIONS, _SCORES = "generations.jsonl", "scores.json"

SCORING_VERSION = 2
"""Raise it when the same generation would be judged or parsed differently."""

Progress = Callable[[int], None]
"""Told how many examples are done."""


@dataclass(frozen=True)
class EvaluationJob(Assessment):
    """A model folder and how to test it."""

    model_dir: str


class EvaluationPool:
    """Ray actors that generate and judge; they live as long as the pool and load a model when they first need it."""

    def __init__(self, cluster: ClusterConfig, num_actors: int) -> None:
        self._actors = [
            _EvaluationActor.options(  # type: ignore[attr-defined]
                num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker, max_restarts=2, max_task_retries=2
            ).remote(cluster.cpus_per_worker)
            for _ in range(num_actors)
        ]

    def __enter__(self) -> "EvaluationPool":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def evaluate(self, job: EvaluationJob, examples: Sequence[Example], folder: Path, progress: Progress) -> Scores:
        """Generate for ``examples``, or for those that have no generation yet, judge all, and write the scores.

        Args:
            job: the model folder and how to test it.
            examples: the test set.
            folder: named by ``generation_digest``, so that what lies there was generated in the same way.
            progress: told how many examples have been generated.

        Raises:
            DataError: the answer check could judge none of the answers.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._generate_missing(job, examples, folder / _GENERATIONS, progress)
        known = _read_generations(folder)
        chunks = in_batches(examples, job.settings.batch_size)
        judged = self._map(lambda actor, chunk: actor.judge.remote(job, chunk, [known[e.id] for e in chunk]), chunks)
        by_id = {record["id"]: record for chunk in judged for record in chunk}
        records = [by_id[example.id] for example in examples]
        scores = score_records(records, job.settings.alpha)
        if scores.unjudged == scores.n:
            raise DataError(
                f"no answer of {folder.name} could be judged with evaluation.answer_check="
                f"{job.settings.answer_check}: {records[0]['reason']}; choose another check"
            )
        write_text_atomically(
            folder / "records.jsonl", "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        )
        write_json_atomically(folder / _SCORES, asdict(scores) | {"scoring_digest": scoring_digest(job, examples)})
        return scores

    def _generate_missing(
        self, job: EvaluationJob, examples: Sequence[Example], journal: Path, progress: Progress
    ) -> None:
        """Chunks are cut from the whole set, so that a resumed evaluation batches, and pads, as an uninterrupted."""
        keep_records(journal, lambda record: True)
        known = {record["id"] for record in read_records(journal)}
        by_length = sorted(examples, key=lambda example: len(example.prompt))
        todo = [
            chunk
            for chunk in in_batches(by_length, job.settings.batch_size)
            if any(example.id not in known for example in chunk)
        ]
        done = len(examples) - sum(map(len, todo))
        progress(done)
        for generations in self._map(lambda actor, chunk: actor.generate.remote(job, chunk), todo):
            append_records(journal, generations)
            done += len(generations)
            progress(done)

    def _map(
        self, call: Callable[[Any, Sequence[Example]], Any], chunks: Sequence[Sequence[Example]]
    ) -> Iterator[list[Record]]:
        yield from ActorPool(self._actors).map_unordered(call, chunks)


def generation_digest(job: EvaluationJob, model_digest: str, examples: Sequence[Example]) -> str:
    """Digest of everything a generation depends on but the size of batches."""
    return digest_json(
        {
            "model": model_digest,
            "prompt": job.prompt.model_dump(mode="json"),
            "max_new_tokens": job.settings.max_new_tokens,
            "prompts": [(e.id, e.prompt, [(turn.role, turn.content) for turn in e.history]) for e in examples],
        }
    )


def scoring_digest(job: EvaluationJob, examples: Sequence[Example]) -> str:
    """Digest of everything that turns generations into scores."""
    return digest_json(
        {
            "scoring_version": SCORING_VERSION,
            "form": job.form.value,
            "contract": job.contract.model_dump(mode="json"),
            "answer_check": job.settings.answer_check,
            "alpha": job.settings.alpha,
            "references": [(example.id, dict(example.values)) for example in examples],
        }
    )


def is_scored(job: EvaluationJob, examples: Sequence[Example], folder: Path) -> bool:
    """Whether the folder holds the scores that this job would give."""
    file = folder / _SCORES
    return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["scoring_digest"] == scoring_digest(
        job, examples
    )


def _read_generations(folder: Path) -> dict[str, Generation]:
    records = read_records(folder / _GENERATIONS)
    return {record["id"]: Generation(record["text"], record["num_tokens"], record["truncated"]) for record in records}


@ray.remote
class _EvaluationActor:
    """Holds one model at a time."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._model_dir = ""
        self._generator: Generator | None = None

    def generate(self, job: EvaluationJob, examples: Sequence[Example]) -> list[Record]:
        if self._generator is None or self._model_dir != job.model_dir:
            self._generator = None  # the old model goes before the new one comes
            self._generator = Generator(Path(job.model_dir), job.prompt, job.trust_remote_code)
            self._model_dir = job.model_dir
        generations = self._generator.generate(examples, job.settings.max_new_tokens)
        return [{"id": e.id} | asdict(generation) for e, generation in zip(examples, generations, strict=True)]

    def judge(self, job: EvaluationJob, examples: Sequence[Example], generations: Sequence[Generation]) -> list[Record]:
        return [make_record(e, generation, job) for e, generation in zip(examples, generations, strict=True)]
