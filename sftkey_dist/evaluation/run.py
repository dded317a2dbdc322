"""Evaluate model folders as a fan-out of Ray actors; finished items are appended and never generated twice."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util import ActorPool

from sftkey_dist.config.schema import ClusterConfig, EvaluationConfig, PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.answers import ANSWER_CHECKS, Judgement, Verdict, find_answer
from sftkey_dist.evaluation.generate import Generation, Generator
from sftkey_dist.evaluation.score import Scores, score_records
from sftkey_dist.files import digest_json, write_json_atomically

Progress = Callable[[int], None]
"""Told how many examples are done."""


@dataclass(frozen=True)
class EvaluationJob:
    """One model folder and how to test it; plain values that travel to any machine."""

    model_dir: str
    form: Form
    contract: ResponseContract
    prompt: PromptConfig
    settings: EvaluationConfig
    trust_remote_code: bool


class EvaluationPool:
    """Ray actors that generate and check; they live as long as the pool and load a model when they first need it."""

    def __init__(self, cluster: ClusterConfig, settings: EvaluationConfig) -> None:
        self._actors = [
            _EvaluationActor.options(  # type: ignore[attr-defined]
                num_cpus=cluster.cpus_per_worker,
                num_gpus=cluster.gpus_per_worker,
                max_restarts=2,
                max_task_retries=2,
            ).remote(cluster.cpus_per_worker)
            for _ in range(settings.num_workers or cluster.num_workers)
        ]

    def __enter__(self) -> "EvaluationPool":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def evaluate(self, job: EvaluationJob, examples: Sequence[Example], folder: Path, progress: Progress) -> Scores:
        """Evaluate ``examples``, or what is left of them, into ``folder/records.jsonl``; returns the scores.

        A folder whose records were made otherwise (another model or setting) is not continued: its name should
        hold ``evaluation_digest``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        records = _read_records(folder / "records.jsonl")
        known = {record["id"] for record in records}
        todo = sorted((e for e in examples if e.id not in known), key=lambda e: len(e.prompt))
        progress(len(records))
        chunks = [todo[i : i + job.settings.batch_size] for i in range(0, len(todo), job.settings.batch_size)]
        with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
            for chunk in self._map(job, chunks):
                file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in chunk))
                file.flush()
                records += chunk
                progress(len(records))
        position = {example.id: index for index, example in enumerate(examples)}
        # Records arrive in any order; scored in the order of the examples, a resumed evaluation gives the same bytes.
        scores = score_records(sorted(records, key=lambda record: position[record["id"]]), job.settings.alpha)
        write_json_atomically(folder / "scores.json", asdict(scores))
        return scores

    def _map(self, job: EvaluationJob, chunks: Sequence[Sequence[Example]]) -> Iterator[list[dict[str, Any]]]:
        pool = ActorPool(self._actors)
        yield from pool.map_unordered(lambda actor, chunk: actor.evaluate.remote(job, chunk), chunks)


def evaluation_digest(job: EvaluationJob, model_digest: str, examples: Sequence[Example]) -> str:
    """Digest of everything a record depends on; batch size and alpha are not among it."""
    return digest_json(
        {
            "model": model_digest,
            "form": job.form.value,
            "contract": job.contract.model_dump(mode="json"),
            "prompt": job.prompt.model_dump(mode="json"),
            "answer_check": job.settings.answer_check,
            "max_new_tokens": job.settings.max_new_tokens,
            "examples": [(example.id, example.prompt, dict(example.values)) for example in examples],
        }
    )


def make_record(example: Example, generation: Generation, job: EvaluationJob) -> dict[str, Any]:
    """What an evaluation keeps of one example."""
    parsed = job.contract.parse(generation.text, job.form)
    answers = {s.name: find_answer(generation.text, job.contract, job.form, s.name) for s in job.contract.key_segments}
    judgement = _judge({name: found.text for name, found in answers.items()}, example, job)
    return {
        "id": example.id,
        "prompt": example.prompt,
        "output": generation.text,
        "reference": {name: example.values[name] for name in answers},
        "answer": {name: found.text for name, found in answers.items()},
        "answer_source": {name: found.source for name, found in answers.items()},
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "keeps_contract": parsed.keeps_contract,
        "violation": parsed.violation.value if parsed.violation else None,
        "violation_detail": parsed.detail,
        "num_tokens": generation.num_tokens,
        "truncated": generation.truncated,
    }


def _judge(answers: dict[str, str], example: Example, job: EvaluationJob) -> Judgement:
    """Correct when every key segment is; the first other verdict decides otherwise."""
    check = ANSWER_CHECKS[job.settings.answer_check]
    judgements = [check(answer, example.values[name]) for name, answer in answers.items()]
    return next((j for j in judgements if j.verdict is not Verdict.CORRECT), judgements[0])


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Records of an earlier run; a last line without its end was being written when that run died."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole), encoding="utf-8")
    return [json.loads(line) for line in whole]


@ray.remote
class _EvaluationActor:
    """Holds one model at a time."""

    def __init__(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._loaded: tuple[str, Generator] | None = None

    def evaluate(self, job: EvaluationJob, examples: Sequence[Example]) -> list[dict[str, Any]]:
        if self._loaded is None or self._loaded[0] != job.model_dir:
            self._loaded = (job.model_dir, Generator(Path(job.model_dir), job.prompt, job.trust_remote_code))
        generations = self._loaded[1].generate([e.prompt for e in examples], job.settings.max_new_tokens)
        return [make_record(e, g, job) for e, g in zip(examples, generations, strict=True)]
