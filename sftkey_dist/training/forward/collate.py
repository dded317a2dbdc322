"""Examples to one packed row with restarting positions; segment ids to targets and weights.

Shapes: T tokens in the row, K kept positions (those whose next token is a target), S segments.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sftkey_dist.contract import PROMPT_ID


@dataclass(frozen=True)
class PackedRow:
    """A micro-batch.

    Attributes:
        input_ids: int64 [1, T].
        position_ids: int64 [1, T], restarting at 0 with every example.
        example_lengths: tokens of each example, in order; they sum to T.
        cu_seq_lens: int32 [N + 1], where each of the N examples begins, then T: what attention kernels take, made once
            a row instead of once a layer.
        kept_positions: int64 [K], positions whose logits are needed; K >= 1 always.
        targets: int64 [K], the token after each kept position.
        target_segments: int64 [K], segment ids of the targets.
        target_weights: float32 [K], loss weights of the targets.
        anchor: what targets are anchored to; None if none is.
        has_targets: False where the one kept position stands for none, so that K >= 1.
        num_tokens: number of tokens that belong to an example; those after them fill the row up.
        is_part: whether it is the part of a longer row that one of several ranks computes. Then tokens and positions
            are those of the part, and ``example_lengths`` and ``cu_seq_lens`` those of the whole row.
    """

    input_ids: Tensor
    position_ids: Tensor
    example_lengths: tuple[int, ...]
    cu_seq_lens: Tensor
    kept_positions: Tensor
    targets: Tensor
    target_segments: Tensor
    target_weights: Tensor
    anchor: "RowAnchor | None" = None
    has_targets: bool = True
    num_tokens: int = 0
    is_part: bool = False

    def to(self, device: torch.device) -> "PackedRow":
        """The row on a device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        anchor = None if self.anchor is None else self.anchor.to(device)
        return replace(self, anchor=anchor, **tensors)


@dataclass(frozen=True)
class RowAnchor:
    """Predictions that targets of a row are held close to.

    Attributes:
        weights: float32 [K], weight of each target's divergence; 0 where a target is not anchored.
        ids: int64 [K, k], the most likely tokens of the other model.
        log_probabilities: float32 [K, k], their logarithms in nats.
    """

    weights: Tensor
    ids: Tensor
    log_probabilities: Tensor

    def to(self, device: torch.device) -> "RowAnchor":
        """The anchor on a device."""
        return RowAnchor(**{name: value.to(device) for name, value in vars(self).items()})

    def at(self, is_chosen: Tensor) -> "RowAnchor":
        """The anchor at some of the targets, bool [K]."""
        return RowAnchor(**{name: value[is_chosen] for name, value in vars(self).items()})


@dataclass(frozen=True)
class AnchoredExamples:
    """Predictions that the examples of a row are held close to.

    Attributes:
        segment_weights: weight of a token's divergence by its segment id, [S].
        predictions: for each example, ids and log-probabilities [n, k] of its n anchored tokens in order.
    """

    segment_weights: Sequence[float]
    predictions: Sequence[tuple[np.ndarray, np.ndarray]]


def pack(
    examples: Sequence[tuple[np.ndarray, np.ndarray]],
    segment_weights: Sequence[float],
    observe_all: bool,
    example_weights: np.ndarray | None = None,
    anchored: AnchoredExamples | None = None,
) -> PackedRow:
    """Concatenate ``(input_ids[L], segment_ids[L])`` pairs into a row.

    Args:
        examples: may be empty: the row is then a dummy of one token that carries no loss, so that a rank without
            examples takes part in every collective.
        segment_weights: loss weight of each segment id.
        observe_all: keep every response position, to measure segments that carry no loss; gradients are the same.
        example_weights: factor of each example's loss weights, float32 [N]; None if all are 1.
        anchored: predictions that the examples are held close to.
    """
    if not examples:
        return dummy_row()
    weights = np.asarray(segment_weights, dtype=np.float32)
    input_ids = np.concatenate([ids for ids, _ in examples])
    segments = np.concatenate([segment_ids for _, segment_ids in examples])
    lengths = tuple(len(ids) for ids, _ in examples)
    is_target = weights[segments] > 0
    if observe_all:
        is_target |= segments != PROMPT_ID
    if anchored is not None:
        is_target |= np.asarray(anchored.segment_weights)[segments] > 0
    # The first token of an example would be predicted from the example before it.
    is_target[np.cumsum((0, *lengths[:-1]))] = False
    targets = np.flatnonzero(is_target)
    of_examples = np.ones(1, np.float32) if example_weights is None else np.repeat(example_weights, lengths)[targets]
    row = PackedRow(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        example_lengths=lengths,
        cu_seq_lens=_boundaries(lengths),
        kept_positions=torch.from_numpy(targets - 1),
        targets=torch.from_numpy(input_ids[targets]),
        target_segments=torch.from_numpy(segments[targets]),
        target_weights=torch.from_numpy(weights[segments[targets]] * of_examples),
        anchor=None if anchored is None else _row_anchor(anchored, input_ids[targets], segments[targets], of_examples),
        num_tokens=len(input_ids),
    )
    return row if len(targets) else _without_targets(row)


def _row_anchor(
    anchored: AnchoredExamples, targets: np.ndarray, target_segments: np.ndarray, of_examples: np.ndarray
) -> RowAnchor:
    weights = np.asarray(anchored.segment_weights, dtype=np.float32)[target_segments]
    ids, log_probabilities = (np.concatenate(part) for part in zip(*anchored.predictions, strict=True))
    # Where nothing is anchored stands a certain prediction of the target: its divergence is finite, and its weight 0.
    all_ids = np.repeat(targets[:, None], ids.shape[1], axis=1)
    everywhere = np.full(all_ids.shape, -np.inf, dtype=np.float32)
    everywhere[:, 0] = 0
    all_ids[weights > 0], everywhere[weights > 0] = ids, log_probabilities
    return RowAnchor(*map(torch.from_numpy, (weights * of_examples, all_ids, everywhere)))


def with_targets_of(row: PackedRow, segments: Collection[int]) -> PackedRow:
    """The same tokens, of which only those of some segments are targets.

    Args:
        row: a whole row.
        segments: segment ids.
    """
    is_chosen = torch.isin(row.target_segments, torch.tensor(sorted(segments)))
    return _with_targets_at(row, is_chosen)


def part_of(row: PackedRow, index: int, parts: int) -> PackedRow:
    """The consecutive tokens of a row that one of several ranks computes, and the targets of their positions.

    Attention sees the whole row; see `SequenceGroup`. Parts are equally long: where the row's tokens cannot be divided
    so, an example without targets is added to its end.

    Args:
        row: a whole row.
        index: of the part, from 0.
        parts: number of parts.
    """
    if parts == 1:
        return row
    padding = -row.input_ids.shape[1] % parts
    lengths = (*row.example_lengths, padding) if padding else row.example_lengths
    size = (row.input_ids.shape[1] + padding) // parts
    mine = slice(index * size, (index + 1) * size)
    positions = torch.cat([row.position_ids, torch.arange(padding)[None]], dim=1)
    part = replace(
        row,
        input_ids=F.pad(row.input_ids, (0, padding))[:, mine],
        position_ids=positions[:, mine],
        example_lengths=lengths,
        cu_seq_lens=_boundaries(lengths),
        num_tokens=min(max(row.num_tokens - mine.start, 0), size),
        is_part=True,
    )
    is_mine = (row.kept_positions >= mine.start) & (row.kept_positions < mine.stop)
    return _with_targets_at(replace(part, kept_positions=row.kept_positions - mine.start), is_mine)


def split_before_targets(row: PackedRow) -> tuple[PackedRow | None, PackedRow]:
    """Cut every example where its first kept position is.

    Returns:
        A row of what comes before, without targets, in which an example may have length 0, and a row of the rest;
        None for the former where nothing comes before any target.
    """
    ends = torch.tensor(row.example_lengths, device=row.input_ids.device).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    example = torch.bucketize(torch.arange(row.input_ids.shape[1], device=ends.device), ends, right=True)
    first = row.kept_positions[torch.searchsorted(row.kept_positions, starts)]
    is_rest = torch.arange(len(example), device=ends.device) >= first[example]
    rest_lengths = (ends - first).tolist()
    prefix_lengths = (first - starts).tolist()
    places = is_rest.cumsum(0) - 1
    rest = replace(
        row,
        input_ids=row.input_ids[:, is_rest],
        position_ids=row.position_ids[:, is_rest],
        example_lengths=tuple(rest_lengths),
        cu_seq_lens=_boundaries(rest_lengths).to(ends.device),
        kept_positions=places[row.kept_positions],
    )
    if not any(prefix_lengths):
        return None, rest
    prefix = replace(
        _without_targets(row),
        input_ids=row.input_ids[:, ~is_rest],
        position_ids=row.position_ids[:, ~is_rest],
        example_lengths=tuple(prefix_lengths),
        cu_seq_lens=_boundaries(prefix_lengths).to(ends.device),
    )
    return prefix, rest


def dummy_row() -> PackedRow:
    """One token that carries no loss, for a rank that has none."""
    zero = torch.zeros(1, dtype=torch.int64)
    return PackedRow(
        input_ids=zero[None],
        position_ids=zero[None],
        example_lengths=(1,),
        cu_seq_lens=_boundaries((1,)),
        kept_positions=zero,
        targets=zero,
        target_segments=torch.full((1,), PROMPT_ID, dtype=torch.int64),
        target_weights=torch.zeros(1),
        has_targets=False,
    )


def _with_targets_at(row: PackedRow, is_chosen: Tensor) -> PackedRow:
    """The same tokens with some of the targets, bool [K]."""
    if not (row.has_targets and is_chosen.any()):
        return _without_targets(row)
    return replace(
        row,
        kept_positions=row.kept_positions[is_chosen],
        targets=row.targets[is_chosen],
        target_segments=row.target_segments[is_chosen],
        target_weights=row.target_weights[is_chosen],
        anchor=None if row.anchor is None else row.anchor.at(is_chosen),
    )


def _without_targets(row: PackedRow) -> PackedRow:
    """The same tokens, of which the first position is kept and carries no loss."""
    nothing = dummy_row().to(row.input_ids.device)
    of_targets = ("kept_positions", "targets", "target_segments", "target_weights")
    return replace(row, anchor=None, has_targets=False, **{name: getattr(nothing, name) for name in of_targets})


def _boundaries(lengths: Sequence[int]) -> Tensor:
    return torch.tensor((0, *lengths)).cumsum(0).to(torch.int32)
