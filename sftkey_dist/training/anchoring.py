"""Computes what the tokens of an anchored stage are held close to: the predictions of the model that it starts from.

Every example that the stage trains is computed once, before the first step. So no second model has to be held while the
stage trains, as it would for the divergence from all predictions.
"""

from dataclasses import replace

import numpy as np

from sftkey_dist.errors import TrainingError
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.sampler import StepPlanner
from sftkey_dist.sampler.alternatives import longest_first, rows_in_order
from sftkey_dist.sampler.level import EMPTY
from sftkey_dist.strategy import Anchor
from sftkey_dist.training.collate import pack
from sftkey_dist.training.running import RunningStage
from sftkey_dist.training.start_predictions import (
    Predictions,
    StartPredictions,
    are_complete,
    commit_parts,
    write_part,
)


def with_start_predictions(stage: RunningStage, planner: StepPlanner, first_step: int) -> RunningStage:
    """The stage with the predictions of its start, which are computed if it begins; called on all ranks together.

    Raises:
        TrainingError: the stage goes on, and they are gone.
    """
    anchor = stage.job.stage.anchor
    if anchor is None:
        return stage
    folder = stage.directory.anchor
    if not stage.engine.gather_to_all(are_complete(folder))[0]:
        if first_step:
            raise TrainingError(
                f"{folder}: the predictions of the model that the stage started from are gone; remove "
                f"{stage.directory.path} to train the stage from its start"
            )
        _write(stage, anchor, planner)
    return replace(stage, start=StartPredictions(folder))


def _write(stage: RunningStage, anchor: Anchor, planner: StepPlanner) -> None:
    engine, folder = stage.engine, stage.directory.anchor
    num_anchored = np.asarray(stage.store.segment_counts, dtype=np.int64) @ np.array(anchor.segments, dtype=np.int64)
    planned = np.unique(np.concatenate([planner.members(step) for step in range(planner.num_steps)]))
    examples = planned[num_anchored[planned] > 0]
    if engine.rank == 0:
        message = f"computing the predictions of the model that the stage starts from, for {len(examples):,} examples"
        append_event(stage.directory.events, "anchoring", message)
    lengths = planner.lengths[examples]
    dealt = longest_first(lengths, engine.data_ranks)
    found: dict[int, Predictions] = {}
    for row in rows_in_order(dealt, lengths, planner.micro_batch_tokens)[engine.data_rank]:
        content = examples[row[row != EMPTY]].tolist()
        found |= _predictions(stage, anchor, content, num_anchored[content])
    name = write_part(folder, engine.rank, found, min(anchor.top_k, engine.vocab_size))
    files = engine.gather_to_all(name)
    if engine.rank == 0:
        commit_parts(folder, files)
    engine.wait_for_first_rank()


def _predictions(
    stage: RunningStage, anchor: Anchor, content: list[int], num_anchored: np.ndarray
) -> dict[int, Predictions]:
    """Predictions at the anchored targets of the examples of a row, which on some ranks is a dummy."""
    engine, weights = stage.engine, [float(is_anchored) for is_anchored in anchor.segments]
    row = pack([stage.store.example(index) for index in content], weights, observe_all=False)
    computed = engine.predictions_without_dropout(row.to(engine.device), anchor.top_k).cpu().numpy()
    if not content:
        return {}
    of_examples = np.split(computed, np.cumsum(num_anchored)[:-1])
    halves = [np.split(part, 2, axis=1) for part in of_examples]
    return {index: (ids.astype(np.int64), logs) for index, (ids, logs) in zip(content, halves, strict=True)}
