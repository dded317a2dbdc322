"""Measures a model with swapped reasoning: continues what is not continued yet, and scores it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from sftkey_dist.data.example import Example
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool, chunk_size, read_generations
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.judging import inputs_of_checks
from sftkey_dist.evaluation.swapped.beginning import VERSION, Beginning, with_generated, with_references
from sftkey_dist.evaluation.swapped.pairing import Pairs
from sftkey_dist.run_dir import EvaluationDir
from sftkey_dist.run_dir.artifacts.swapped import (
    CONTINUATIONS,
    SWAP_STATE,
    SWAPPED,
    ContinuationKey,
    SwappedReasoning,
    SwapRecord,
)

_Answers = Mapping[ContinuationKey, Generation | str]
"""What the model wrote after each beginning, or why it was not asked."""


@dataclass(frozen=True)
class _Asked:
    """The beginnings of a pair; ``generated`` may be the reason why there is none."""

    own: Beginning
    swapped: Beginning
    generated: Beginning | str

    @property
    def beginnings(self) -> list[Beginning]:
        references = [self.own, self.swapped]
        return references if isinstance(self.generated, str) else [*references, self.generated]


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
        self._job, self._folder, self._left_out = job, folder, pairs.left_out
        self._digest = swap_digest(job, examples)
        outputs = {key: samples[0].text for key, samples in read_generations(folder).items()}
        self._asked = [_Asked(*with_references(pair, job), with_generated(pair, outputs, job)) for pair in pairs.pairs]
        self._beginnings = [beginning for asked in self._asked for beginning in asked.beginnings]

    @property
    def num_answers(self) -> int:
        """Number of answers that the model gives."""
        return len(self._beginnings)

    @property
    def is_answered(self) -> bool:
        """Whether the model has given all of them."""
        return {beginning.key for beginning in self._beginnings} <= self._answers().keys()

    def generate(self, pool: EvaluationPool, progress: Callable[[int], None]) -> None:
        """Continue every beginning that is not continued yet.

        Batches are formed from all beginnings of a test set in the order of the pairs, so that a resumed measurement
        has the same ones, and one of more questions continues only what comes after.

        Args:
            pool: actors that generate.
            progress: called with the number of answers that are there.
        """
        journal = EvaluationDir(self._folder).continuations
        CONTINUATIONS.keep(journal)
        earlier = self._answers().keys()
        todo = [chunk for chunk in self._chunks() if any(beginning.key not in earlier for beginning in chunk)]
        done = self.num_answers - sum(map(len, todo))
        progress(done)
        for records in pool.results(lambda actor, chunk: actor.complete.remote(self._job, chunk), todo):
            CONTINUATIONS.append(journal, [record for record in records if record.key not in earlier])
            done += len(records)
            progress(done)

    def score(self) -> SwappedReasoning:
        """Score the answers and write the result."""
        answers, records = self._answers(), list[SwapRecord]()
        left_out, without_generated = Counter(self._left_out), Counter[str]()
        for asked in self._asked:
            record = self._with_references(asked, answers)
            if isinstance(record, str):
                left_out[record] += 1
                continue
            whole = self._with_generated(record, asked.generated, answers)
            if isinstance(whole, str):
                without_generated[whole] += 1
            records.append(record if isinstance(whole, str) else whole)
        found = SwappedReasoning(self._digest, tuple(records), dict(left_out), dict(without_generated))
        SWAPPED.write(EvaluationDir(self._folder).swapped_reasoning, found)
        return found

    def _with_references(self, asked: _Asked, answers: _Answers) -> SwapRecord | str:
        """The record of a question with the two reference reasonings, or why there is none."""
        after_own, after_donor = answers[asked.own.key], answers[asked.swapped.key]
        if isinstance(after_own, str):
            return after_own
        if isinstance(after_donor, str):
            return after_donor
        return SwapRecord(
            data_set=asked.own.question.data_set,
            id=asked.own.question.id,
            donor=asked.own.donor,
            own_text=after_own.text,
            own_verdict=asked.own.verdict(after_own, self._job),
            swapped_text=after_donor.text,
            outcome=asked.swapped.outcome(after_donor, self._job),
        )

    def _with_generated(self, record: SwapRecord, generated: Beginning | str, answers: _Answers) -> SwapRecord | str:
        """The record with the answer to the model's own reasoning, or why there is none."""
        if isinstance(generated, str):
            return generated
        answer = answers[generated.key]
        if isinstance(answer, str):
            return answer
        return replace(record, generated_text=answer.text, generated_outcome=generated.outcome(answer, self._job))

    def _chunks(self) -> list[Sequence[Beginning]]:
        by_data_set = groupby(self._beginnings, lambda beginning: beginning.question.data_set)
        size = chunk_size(self._job.settings)
        return [chunk for _, of_set in by_data_set for chunk in in_batches(list(of_set), size)]

    def _answers(self) -> _Answers:
        return {record.key: record.answer for record in CONTINUATIONS.read(EvaluationDir(self._folder).continuations)}


def swap_digest(job: EvaluationJob, examples: Sequence[Example]) -> str:
    """Digest of what the result depends on, beside the outputs in the folder, whose name stands for them."""
    return digest_json([VERSION, job.settings.swapped_reasoning, inputs_of_checks(job, examples)])


def is_swap_measured(job: EvaluationJob, examples: Sequence[Example], folder: Path) -> bool:
    """Whether a folder holds the result that the job asks for."""
    file = EvaluationDir(folder).swapped_reasoning
    return file.is_file() and SWAP_STATE.read(file).digest == swap_digest(job, examples)
