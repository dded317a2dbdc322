"""Computes what the tokens of an anchored stage are held close to: the predictions of the model that it starts from.

Every example that the stage trains is computed once, before the first step. So no second model has to be held while the
stage trains, as it would for the divergence from all predictions. Files are written as the computation goes on, and an
interrupted one continues with the examples that are in none.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sftkey_dist.errors import StorageError, TrainingError
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.sampler import StepPlanner
from sftkey_dist.sampler.alternatives import longest_first, rows_in_order
from sftkey_dist.sampler.level import EMPTY
from sftkey_dist.strategy import Anchor
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.forward.collate import pack
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.steps.start_predictions import Predictions, StartPredictions, write_part

_MAX_PART_BYTES = 256 * 2**20
_POLL_SECONDS = 1.0


def with_start_predictions(
    stage: RunningStage, planner: StepPlanner, first_step: int, watch: Stopwatch
) -> RunningStage | None:
    """The stage with the predictions of its start, which are computed if it begins; called on all ranks together.

    Returns:
        None if the stage was asked to stop before all of them were computed.

    Raises:
        TrainingError: the stage goes on, and some are gone.
    """
    anchor = stage.job.stage.anchor
    if anchor is None:
        return stage
    counts = np.asarray(stage.store.segment_counts, dtype=np.int64)
    num_anchored: np.ndarray = counts @ np.array(anchor.segments, dtype=np.int64)
    planned = np.unique(np.concatenate([planner.members(step) for step in range(planner.num_steps)]))
    examples = planned[num_anchored[planned] > 0]
    there = _predictions_there(stage, anchor)
    # Rank 0's view counts: on shared storage another node may still see the folder as it was.
    missing, num_files = stage.engine.gather_to_all((there.missing(examples), there.num_files))[0]
    there.close()
    if len(missing) and first_step:
        raise TrainingError(
            f"{stage.directory.anchor}: predictions of the model that the stage started from are gone; remove "
            f"{stage.directory.path} to train the stage from its start"
        )
    if len(missing) and not _compute(stage, anchor, planner, missing, num_anchored, num_files, watch):
        return None
    return replace(stage, start=_once_all_are_seen(stage, anchor, examples))


def _compute(
    stage: RunningStage,
    anchor: Anchor,
    planner: StepPlanner,
    examples: np.ndarray,
    num_anchored: np.ndarray,
    num_files: int,
    watch: Stopwatch,
) -> bool:
    """Compute and write the predictions for some examples, file by file; returns whether it came to the end.

    Args:
        stage: the stage, whose model is that of its start.
        anchor: of the stage.
        planner: of the stage.
        examples: their indices, int64; at least one.
        num_anchored: number of anchored tokens of every example of the store, int64 [N].
        num_files: number of files that are there, so that new ones get other names.
        watch: charges a phase with the time.
    """
    engine, folder = stage.engine, stage.directory.anchor
    if engine.rank == 0:
        message = f"computing the predictions of the model that the stage starts from, for {len(examples):,} examples"
        append_event(stage.directory.events, "anchoring", message)
    for number, rows in enumerate(_parts(stage, anchor, planner, examples), start=num_files):
        asked = engine.rank == 0 and stage.directory.stop_request.exists()
        if any(engine.gather_to_all(asked)):
            return False
        with watch.phase("anchor"):
            found: dict[int, Predictions] = {}
            for content in rows:
                found |= _predictions(stage, anchor, content, num_anchored[content])
            if engine.sequence_group.rank == 0:  # the others found the same
                write_part(folder / f"part_{number:05d}_rank_{engine.data_rank:05d}.safetensors", found)
    engine.store_collectives.gather("")  # until all have written
    return True


def _once_all_are_seen(stage: RunningStage, anchor: Anchor, examples: np.ndarray) -> StartPredictions:
    """The predictions, as soon as shared storage shows what other nodes have written."""
    deadline = time.monotonic() + stage.job.training.storage_timeout_seconds
    while len((found := _predictions_there(stage, anchor)).missing(examples)):
        found.close()
        if time.monotonic() > deadline:
            raise StorageError(
                f"{stage.directory.anchor}: rank {stage.engine.rank} does not see what others wrote there"
            )
        time.sleep(_POLL_SECONDS)
    return found


def _predictions_there(stage: RunningStage, anchor: Anchor) -> StartPredictions:
    return StartPredictions(stage.directory.anchor, min(anchor.top_k, stage.engine.vocab_size))


def _parts(
    stage: RunningStage, anchor: Anchor, planner: StepPlanner, examples: np.ndarray
) -> Iterator[list[list[int]]]:
    """Rows of examples of this rank, as many at a time as fit in a file; every rank has as many parts and rows."""
    lengths = planner.lengths[examples]
    dealt = longest_first(lengths, stage.engine.data_ranks)
    layout = rows_in_order(dealt, lengths, planner.micro_batch_tokens)[stage.engine.data_rank]
    rows = [examples[row[row != EMPTY]].tolist() for row in layout]
    at_a_time = max(1, _MAX_PART_BYTES // (8 * anchor.top_k * planner.micro_batch_tokens))
    for start in range(0, len(rows), at_a_time):
        yield rows[start : start + at_a_time]


def _predictions(
    stage: RunningStage, anchor: Anchor, content: list[int], num_anchored: np.ndarray
) -> dict[int, Predictions]:
    """Predictions at the anchored targets of the examples of a row, which on some ranks is a dummy."""
    engine, weights = stage.engine, [float(is_anchored) for is_anchored in anchor.segments]
    row = pack([stage.store.example(index) for index in content], weights, observe_all=False)
    row = engine.place(row)
    computed = engine.gather_parts(row, engine.predictions_without_dropout(row, anchor.top_k)).cpu().numpy()
    if not content:
        return {}
    of_examples = np.split(computed, np.cumsum(num_anchored)[:-1])
    halves = [np.split(part, 2, axis=1) for part in of_examples]
    # Copies: a view would keep the whole row's array in memory.
    return {index: (ids.astype(np.int32), logs.copy()) for index, (ids, logs) in zip(content, halves, strict=True)}
