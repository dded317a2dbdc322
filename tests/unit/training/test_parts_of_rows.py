"""Parts of a packed row: together they are the row, and each target is in one of them."""

import numpy as np
import pytest
import torch

from sftkey_dist.training.forward.collate import AnchoredExamples, PackedRow, dummy_row, pack, part_of

WEIGHTS = (0.0, 1.0, 2.0)


def make_row(lengths, seed=0, anchored=False) -> PackedRow:
    draw = np.random.default_rng(seed)
    examples = [
        (draw.integers(1, 90, length), np.r_[np.zeros(2, int), np.sort(draw.integers(0, 3, length - 2))])
        for length in lengths
    ]
    anchor = None
    if anchored:
        counts = [int((segments > 0).sum()) for _, segments in examples]
        predictions = [(draw.integers(0, 90, (n, 4)), np.log(draw.random((n, 4)))) for n in counts]
        anchor = AnchoredExamples((0.0, 0.5, 0.5), [(i.astype(np.int32), p.astype(np.float32)) for i, p in predictions])
    return pack(examples, WEIGHTS, observe_all=False, anchored=anchor)


@pytest.mark.parametrize("lengths", [(8, 8), (5, 9, 3), (31,), (3,)])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_parts_are_the_row_with_an_example_that_fills_it_up(lengths, number):
    row = make_row(lengths)
    parts = [part_of(row, index, number) for index in range(number)]
    size = -(-sum(lengths) // number)
    tokens, padding = sum(lengths), size * number - sum(lengths)
    assert {part.input_ids.shape for part in parts} == {(1, size)}
    assert torch.equal(torch.cat([part.input_ids for part in parts], dim=1)[:, :tokens], row.input_ids)
    positions = torch.cat([part.position_ids for part in parts], dim=1)
    assert torch.equal(positions[:, :tokens], row.position_ids)
    assert positions[0, tokens:].tolist() == list(range(padding))
    for part in parts:
        assert part.is_part
        assert part.example_lengths == (*lengths, *([padding] if padding else []))
        assert part.cu_seq_lens.tolist() == [0, *np.cumsum(part.example_lengths)]


@pytest.mark.parametrize("number", [2, 3, 4])
def test_every_target_is_in_the_part_that_holds_the_position_before_it(number):
    row = make_row((5, 9, 3, 20), anchored=True)
    parts = [part_of(row, index, number) for index in range(number)]
    size = parts[0].input_ids.shape[1]
    there = [(index, part) for index, part in enumerate(parts) if part.has_targets]
    assert torch.equal(torch.cat([part.kept_positions + index * size for index, part in there]), row.kept_positions)
    for name in ("targets", "target_segments", "target_weights"):
        assert torch.equal(torch.cat([getattr(part, name) for _, part in there]), getattr(row, name))
    for name in ("weights", "ids", "log_probabilities"):
        assert torch.equal(torch.cat([getattr(part.anchor, name) for _, part in there]), getattr(row.anchor, name))
    assert all(part.kept_positions.max() < size for part in parts)


def test_a_part_without_targets_keeps_one_position_that_counts_for_nothing():
    first, _, third = (part_of(make_row((40,)), index, 3) for index in range(3))
    assert third.has_targets
    for part in (part_of(dummy_row(), 1, 2), part_of(pack([(np.arange(9), np.r_[[0] * 8, 1])], WEIGHTS, False), 0, 2)):
        assert not part.has_targets
        assert part.kept_positions.tolist() == [0]
        assert part.target_weights.tolist() == [0.0]
        assert part.anchor is None
    assert first.input_ids.shape[1] == 14


def test_a_row_that_nobody_shares_is_left_as_it_is():
    row = make_row((5, 9))
    assert part_of(row, 0, 1) is row


@pytest.mark.parametrize(("lengths", "expected"), [((5, 9), (5, 5, 4)), ((4,), (2, 2, 0)), ((6, 6), (4, 4, 4))])
def test_what_fills_a_row_up_counts_for_no_part(lengths, expected):
    examples = [(np.arange(length), np.r_[0, np.ones(length - 1, int)]) for length in lengths]
    row = pack(examples, (0.0, 1.0), observe_all=False)
    assert row.num_tokens == sum(lengths)
    assert tuple(part_of(row, index, 3).num_tokens for index in range(3)) == expected
    assert dummy_row().num_tokens == part_of(dummy_row(), 0, 2).num_tokens == 0
