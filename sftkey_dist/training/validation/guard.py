"""The guard of a stage that leaves part of the response untrained: generate, score, keep the best model.

Candidates are ordinary model folders, so what is scored is what is handed on, byte for byte. A candidate is deleted
when neither the stage nor a checkpoint that it may resume from still counts it as the best.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sftkey_dist.contract import END_OF_TURN, PROMPT, PROMPT_ID
from sftkey_dist.data.example import Example
from sftkey_dist.data.held_out import held_out_indices, without_copies
from sftkey_dist.data.store import EncodedStore, hashes_of
from sftkey_dist.errors import DataError, TrainingError
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.generation.local import LocalGenerator
from sftkey_dist.evaluation.record import make_record
from sftkey_dist.evaluation.score import score_records
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.files import copy_atomically, copy_tree, flush, folder_written_whole, remove_tree
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.run_dir import ModelPlace
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord
from sftkey_dist.run_dir.artifacts.training import GuardScores, SegmentMetrics
from sftkey_dist.training.export import export_model, note_hand_off
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.validation.held_out import HeldOutSet


@dataclass(frozen=True)
class _Best:
    """The best model so far: the optimizer steps done, the part of the stage's update that it has, and its score."""

    steps_done: int
    part: float
    score: float


class Guard:
    """Scores the model every few steps; every method is called on all ranks together and decides the same on all."""

    def __init__(self, stage: RunningStage, references: Callable[[], frozenset[int] | None]) -> None:
        """
        Args:
            stage: the stage; ``stage.job.guard`` is set.
            references: returns, on rank 0, the `kept_step` of every checkpoint that is kept or being written; None
                where that is not known now.
        """
        job = stage.job
        if job.guard is None:
            raise ValueError("the stage has no guard")
        self._settings, self._assessment = job.guard.settings, job.guard.assessment
        self._job, self._engine, self._references = job, stage.engine, references
        self._directory = stage.directory
        hashes, others = stage.store.hashes[stage.held_out], hashes_of(job.other_stores)
        chosen = stage.held_out[held_out_indices(hashes, self._settings.num_examples, job.seed, others)]
        chosen = without_copies(chosen, stage.store.hashes)
        self._alpha = self._assessment.settings.alpha
        if self._settings.signal == "generation":
            self._examples = _restored_examples(stage.store, chosen, job, self._assessment)
        else:
            self._rows = HeldOutSet(stage, chosen)
        self._best: _Best | None = None
        self._num_without_gain = 0

    @property
    def wants_to_stop(self) -> bool:
        """Whether the score has not risen for as long as ``patience`` allows."""
        return self._settings.patience is not None and self._num_without_gain >= self._settings.patience

    @property
    def kept_step(self) -> int | None:
        """Steps done when the model to hand on was taken; None for the last model."""
        return self._best.steps_done if self._best and self._settings.keep == "best" else None

    def is_due(self, steps_done: int, *, is_last: bool) -> bool:
        """Whether to score after so many steps."""
        return is_last or steps_done % self._settings.every_steps == 0

    def recall(self, steps_done: int, score: float) -> None:
        """Count a score from before an interruption; called in the order of the steps."""
        self._count(steps_done, score)

    def check_candidate(self) -> None:
        """
        Raises:
            TrainingError: the best model from before an interruption is gone.
        """
        is_there = self._best is None or self._best_place.model.is_dir()
        if self.kept_step is not None and not self._engine.gather_to_all(is_there)[0]:
            raise TrainingError(
                f"{self._best_place.path}: the guard's best model is gone; remove "
                f"{self._directory.path} to train the stage from its start"
            )

    def evaluate(self, steps_done: int, part: float = 1.0) -> GuardScores:
        """Score the model as it is, and keep it if it is the best so far.

        The score counts unjudged answers as wrong: a model must not win by answers that nobody can judge.

        Args:
            steps_done: number of optimizer steps.
            part: of the stage's update that the model has.

        Raises:
            DataError: no answer can be judged, so that no model is better than another.
        """
        place = self._directory.candidate(steps_done, part)
        if self._settings.signal == "generation":
            export_model(self._engine, self._job, place.model)
            scores = self._score_responses(place)
        else:
            scores = self._score_teacher_forced()
        if self._count(steps_done, scores.score, part) and self._settings.keep == "best":
            if self._settings.signal != "generation":
                export_model(self._engine, self._job, place.model)
            note_hand_off(self._engine, self._job, place)
        self._delete_candidates()
        return scores

    def _score_responses(self, place: ModelPlace) -> GuardScores:
        """Scores of responses that all ranks generate."""
        with self._engine.without_partitioning():
            records = self._records_of_this_rank(place.model)
        # Ranks load the model at different speeds, longer than a collective may take.
        self._engine.store_collectives.gather("")
        everyone = [record for part in self._engine.gather_to_all(records) for record in part]
        scores = score_records(everyone, self._alpha)
        if scores.unjudged == scores.n:
            raise DataError(
                f"validation.guard: none of the held-out answers can be judged ({everyone[0].reason}); choose "
                f"another evaluation.answer_check, or leave out the guard"
            )
        return GuardScores(
            n=scores.n,
            accuracy=scores.accuracy,
            format=scores.format,
            unjudged=scores.unjudged,
            truncated=scores.truncated,
            score=scores.lowest_score,
        )

    def _score_teacher_forced(self) -> GuardScores:
        """Shares of tokens that are the likeliest after the reference: of key segments, and of tags and end of turn."""
        segments = self._rows.measure().segments
        key = {segment.name for segment in self._assessment.contract.key_segments}
        accuracy = _likeliest_share({name: segment for name, segment in segments.items() if name in key})
        structure = {name: segment for name, segment in segments.items() if "." in name or name == END_OF_TURN}
        format_share = _likeliest_share(structure)
        score = self._alpha * accuracy + (1 - self._alpha) * format_share
        n = self._settings.num_examples
        return GuardScores(n=n, accuracy=accuracy, format=format_share, score=score, signal="teacher_forced")

    def hand_on(self) -> None:
        """Copy the best model to where the stage's result lies.

        It is not moved: a stage that is interrupted before its end is recorded looks for the candidate again.
        """
        best, result = self._best_place, self._directory
        if self._engine.rank == 0:
            _copy(best.model, result.model)
            copy_atomically(best.rounding, result.rounding)
            if best.adapter.is_dir():
                _copy(best.adapter, result.adapter)
            # Moved, since only the next stage reads them; an end that was interrupted has done so already.
            if best.masters.is_dir():
                remove_tree(result.masters)
                best.masters.rename(result.masters)
                flush(result.path)
        self._engine.wait_for_first_rank()

    @property
    def _best_place(self) -> ModelPlace:
        if self._best is None:
            raise ValueError("nothing was scored yet")
        return self._directory.candidate(self._best.steps_done, self._best.part)

    def _count(self, steps_done: int, score: float, part: float = 1.0) -> bool:
        """Returns whether the model is the best so far."""
        is_better = self._best is None or score > self._best.score
        self._num_without_gain = 0 if is_better else self._num_without_gain + 1
        if is_better:
            self._best = _Best(steps_done, part, score)
        return is_better

    def _delete_candidates(self) -> None:
        """Delete all but the best, and those that a stage would need that resumes from a checkpoint."""
        if self._engine.rank == 0 and self._directory.candidates.is_dir():
            best = [] if self.kept_step is None else [self._best_place.path]
            referred = self._references() if best else frozenset()
            if referred is not None:
                kept = [*best, *(self._directory.candidate(step).path for step in referred)]
                for folder in (folder for folder in self._directory.candidates.iterdir() if folder not in kept):
                    remove_tree(folder)
        self._engine.wait_for_first_rank()

    def _records_of_this_rank(self, model: Path) -> list[EvaluationRecord]:
        generator = LocalGenerator(model, self._assessment.prompt, self._job.trust_remote_code)
        greedy = replace(self._assessment.decoding, num_samples=1, temperature=0.0, guide=None)
        records = []
        mine = self._examples[self._engine.rank :: self._engine.world_size]
        for chunk in in_batches(mine, self._assessment.settings.batch_size):
            responses = generator.answer([ids for _, ids in chunk], greedy)
            records += [
                _without_texts(make_record(example, generation, self._assessment))
                for (example, _), (generation,) in zip(chunk, responses, strict=True)
            ]
        generator.close()
        return records


def _restored_examples(
    store: EncodedStore, indices: np.ndarray, job: StageJob, assessment: EvaluationSettings
) -> list[tuple[Example, list[int]]]:
    """Examples with their encoded prompts, shortest first; every row of a store decodes to exactly its text.

    The references are read like outputs: a JSON object, for one, contains them in another spelling. The question is the
    prompt as its template wrote it, in which a check can find the options.
    """
    tokenizer = load_tokenizer(job.model_dir, job.trust_remote_code)
    restored = []
    for index in sorted(indices, key=lambda index: int(store.segment_counts[index, PROMPT_ID])):
        ids, segments = store.example(int(index))
        prompt = ids[segments == PROMPT_ID].tolist()
        texts = {
            name: tokenizer.decode(ids[segments == number], clean_up_tokenization_spaces=False)
            for number, name in enumerate(store.segment_names)
            if name not in (PROMPT, END_OF_TURN)
        }
        parsed = assessment.contract.parse("".join(texts.values()), assessment.form)
        values = parsed.values if parsed.keeps_contract else {n: text for n, text in texts.items() if "." not in n}
        question = tokenizer.decode(prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        (name,) = store.example_ids([int(index)])
        restored.append((Example(name, question, values), prompt))
    return restored


def _copy(folder: Path, copy: Path) -> None:
    """Copy a folder, whole or not at all."""
    remove_tree(copy)  # of an end that was interrupted before it was recorded
    with folder_written_whole(copy) as scratch:
        copy_tree(folder, scratch)


def _likeliest_share(segments: Mapping[str, SegmentMetrics]) -> float:
    """Share over all tokens of some segments of those that were the likeliest."""
    tokens = sum(segment.tokens for segment in segments.values())
    return sum(segment.token_accuracy * segment.tokens for segment in segments.values()) / max(tokens, 1)


def _without_texts(record: EvaluationRecord) -> EvaluationRecord:
    """What scores are computed from; the texts of a record need not be sent to other ranks."""
    return replace(
        record,
        prompt="",
        history=(),
        tool_turns=None,
        output="",
        reference={},
        answer={},
        answer_source={},
        segments={},
    )
