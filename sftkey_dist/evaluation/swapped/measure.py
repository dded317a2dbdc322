"""Measures a model with swapped reasoning: continues what is not continued yet, and scores it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sftkey_dist.data.example import Example
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool, chunk_size, read_generations
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.judging import scoring_digest
from sftkey_dist.evaluation.swapped.beginning import Beginning, with_generated, with_references
from sftkey_dist.evaluation.swapped.pairing import Pairs
from sftkey_dist.run_dir.artifacts.swapped import (
    CONTINUATIONS,
    SWAP_STATE,
    SWAPPED,
    ContinuationKey,
    ContinuationRecord,
    SwappedReasoning,
    SwapRecord,
)

_SWAPPED, _CONTINUATIONS = "swapped_reasoning.json", "swapped_reasoning.jsonl"
_VERSION = 1
"""Increase this number when the same questions would be paired, continued or scored differently."""


class SwapMeasurement:
    """The measurement of one evaluation, whose outputs are all generated."""

    def __init__(self, job: EvaluationJob, examples: Sequence[Example], folder: Path, pairs: Pairs) -> None:
        """
        Args:
            job: the model folder and how it is evaluated.
            examples: the test sets.
            folder: folder of the evaluation.
            pairs: the questions with their donors.
        """
        self._job, self._folder, self._pairs = job, folder, pairs
        self._digest = swap_digest(job, examples, folder)
        outputs = {key: samples[0].text for key, samples in read_generations(folder).items()}
        self._generated = [with_generated(pair, outputs, job) for pair in pairs.pairs]
        self._beginnings = [
            beginning
            for pair, generated in zip(pairs.pairs, self._generated, strict=True)
            for beginning in (*with_references(pair), *([] if isinstance(generated, str) else [generated]))
        ]

    @property
    def num_answers(self) -> int:
        """Number of answers that the model gives."""
        return len(self._beginnings)

    def generate(self, pool: EvaluationPool, progress: Callable[[int], None]) -> None:
        """Continue every beginning that is not continued yet.

        Batches are formed from all beginnings, so that a resumed measurement has the same ones.

        Args:
            pool: actors that generate.
            progress: called with the number of answers that are there.
        """
        journal = self._folder / _CONTINUATIONS
        CONTINUATIONS.keep(journal)
        known = self._continued().keys()
        chunks = in_batches(sorted(self._beginnings, key=_length, reverse=True), chunk_size(self._job.settings))
        todo = [chunk for chunk in chunks if any(beginning.key not in known for beginning in chunk)]
        done = self.num_answers - sum(map(len, todo))
        progress(done)
        for records in pool.results(lambda actor, chunk: actor.complete.remote(self._job, chunk), todo):
            CONTINUATIONS.append(journal, [record for record in records if record.key not in known])
            done += len(records)
            progress(done)

    def score(self) -> SwappedReasoning:
        """Score the answers and write the result."""
        continued, records = self._continued(), list[SwapRecord]()
        left_out, without_generated = Counter(self._pairs.left_out), Counter[str]()
        for pair, generated in zip(self._pairs.pairs, self._generated, strict=True):
            own, swapped = with_references(pair)
            refusal = continued[own.key].refusal or continued[swapped.key].refusal
            if refusal:
                left_out[refusal] += 1
                continue
            record = self._record(own, swapped, continued)
            without = generated if isinstance(generated, str) else continued[generated.key].refusal
            if isinstance(generated, str) or without:
                without_generated[without] += 1
            else:
                answer = continued[generated.key].answered
                outcome = generated.outcome(answer, self._job)
                record = replace(record, generated_text=answer.text, generated_outcome=outcome)
            records.append(record)
        found = SwappedReasoning(self._digest, tuple(records), dict(left_out), dict(without_generated))
        SWAPPED.write(swapped_file(self._folder), found)
        return found

    def _record(
        self, own: Beginning, swapped: Beginning, continued: Mapping[ContinuationKey, ContinuationRecord]
    ) -> SwapRecord:
        """The record of a question with the two reference reasonings."""
        after_own, after_donor = continued[own.key].answered, continued[swapped.key].answered
        return SwapRecord(
            data_set=own.question.data_set,
            id=own.question.id,
            donor=own.donor,
            own_text=after_own.text,
            own_verdict=own.verdict(after_own, self._job),
            swapped_text=after_donor.text,
            outcome=swapped.outcome(after_donor, self._job),
        )

    def _continued(self) -> dict[ContinuationKey, ContinuationRecord]:
        return {record.key: record for record in CONTINUATIONS.read(self._folder / _CONTINUATIONS)}


def swapped_file(folder: Path) -> Path:
    """The result in the folder of an evaluation."""
    return folder / _SWAPPED


def swap_digest(job: EvaluationJob, examples: Sequence[Example], folder: Path) -> str:
    """Digest of what the result depends on, beside the outputs in the folder, whose name stands for them."""
    return digest_json([_VERSION, job.settings.swapped_reasoning, scoring_digest(job, examples, folder)])


def is_swap_measured(job: EvaluationJob, examples: Sequence[Example], folder: Path) -> bool:
    """Whether a folder holds the result that the job asks for."""
    file = swapped_file(folder)
    return file.is_file() and SWAP_STATE.read(file).digest == swap_digest(job, examples, folder)


def _length(beginning: Beginning) -> int:
    return len(beginning.question.prompt) + sum(map(len, beginning.source.values.values()))
