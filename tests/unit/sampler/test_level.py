"""Levelling near what any assignment could reach, on draws that are hard for it."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkey_dist.sampler.alternatives import as_drawn, longest_first, rows_in_order
from sftkey_dist.sampler.balance import balance_step
from sftkey_dist.sampler.cost import AttentionWindow, CostModel, attended_pairs
from sftkey_dist.sampler.level import EMPTY, Leveller
from sftkey_dist.sampler.stats import loads

COST = CostModel(768, 1)


def bound(values, ranks):
    return max(-(-int(values.sum()) // ranks), int(values.max()))


def heavy_tailed(num_examples, seed):
    """60 % labels of 1-3 tokens, 40 % log-normal answers to 400; log-normal prompts to 4,096 in all."""
    stream = np.random.default_rng(seed)
    long = np.clip(stream.lognormal(4, 1, num_examples), 1, 400).astype(int)
    answers = np.where(stream.random(num_examples) < 0.6, stream.integers(1, 4, num_examples), long)
    return np.clip(stream.lognormal(5.5, 0.9, num_examples), 16, 3696).astype(int) + answers, answers


@given(
    examples=st.lists(st.tuples(st.integers(1, 100), st.integers(0, 50)), min_size=1, max_size=60),
    ranks=st.integers(1, 12),
    slack=st.integers(0, 200),
)
@settings(deadline=None)
def test_any_examples_lie_once_within_the_budget(examples, ranks, slack):
    lengths, loss = (np.array(values) for values in zip(*examples, strict=True))
    loss = loss + (loss.sum() == 0)
    budget = int(lengths.max()) + slack
    laid = balance_step(lengths, COST(lengths), loss, ranks, budget)
    assert laid.shape[0] == ranks
    assert sorted(laid[laid >= 0].tolist()) == list(range(len(lengths)))
    assert loads(laid, lengths).max() <= budget


@pytest.mark.parametrize("ranks", [8, 64, 256])
def test_heavy_tails_are_level_in_cost_and_loss_together(ranks):
    cost_over_bound, loss_over_bound, longest_first_loss = [], [], []
    for seed in range(6):
        lengths, answers = heavy_tailed(ranks * 8, seed)
        laid = balance_step(lengths, COST(lengths), answers, ranks, 8192)
        cost = loads(laid, COST(lengths)).max(axis=0).sum()
        cost_over_bound.append(cost / bound(COST(lengths), ranks))
        loss_over_bound.append(loads(laid, answers).sum(axis=1).max() / bound(answers, ranks))
        other = rows_in_order(longest_first(lengths, ranks), lengths, 8192)
        longest_first_loss.append(loads(other, answers).sum(axis=1).max() / bound(answers, ranks))
    assert np.mean(cost_over_bound) < 1.03
    assert np.mean(loss_over_bound) < 1.03
    assert np.mean(longest_first_loss) > 1.1, "the control: a balancer of totals leaves answers uneven"


@pytest.mark.parametrize(
    ("lengths", "ranks", "fullest"),
    [
        ([50] * 64, 8, 400),
        ([4000] + [10] * 63, 8, 4080),
        ([1] * 8, 8, 1),
        ([100] * 7, 3, 300),
        ([4096, 4096, 1], 2, 4097),
    ],
    ids=["all-equal", "one-giant", "one-each", "not-divisible", "full-rows"],
)
def test_extreme_draws_reach_what_can_be_reached(lengths, ranks, fullest):
    lengths = np.array(lengths)
    laid = balance_step(lengths, COST(lengths), np.ones(len(lengths), dtype=int), ranks, 4096)
    assert loads(laid, lengths).sum(axis=1).max() <= fullest
    assert (loads(laid, lengths) <= 4096).all()


def test_exchanges_keep_every_item_and_never_pass_the_capacity():
    stream = np.random.default_rng(0)
    sizes = stream.integers(1, 100, 60)
    slots = np.concatenate([np.arange(60).reshape(12, 5), np.full((12, 1), EMPTY)], axis=1)
    capacity = int(np.append(sizes, 0)[slots].sum(axis=1).max())
    levelled = Leveller(slots, [sizes**2, stream.integers(0, 9, 60)], sizes=sizes, capacity=capacity).run(50)
    assert sorted(levelled[levelled >= 0].tolist()) == list(range(60))
    loads_after = np.append(sizes, 0)[levelled].sum(axis=1)
    assert loads_after.max() <= capacity


def test_the_costs_of_a_decoder_follow_its_shape():
    """Qwen2.5-7B's layer: 466 MFLOP a token in its matrices, 7,168 FLOP a pair of tokens."""
    cost = CostModel.for_decoder(3584, 18944, 28, 4, 128)
    matrices = 2 * (3584 * 128 * (28 + 4 + 4 + 28) + 3 * 3584 * 18944)
    assert cost.linear / cost.quadratic == pytest.approx(matrices / (2 * 28 * 128))
    assert cost(np.array([1, 10])).tolist() == [cost.linear + cost.quadratic, 10 * cost.linear + 100 * cost.quadratic]


def test_in_layers_with_a_window_a_long_example_costs_no_more_pairs_than_it_sees():
    window, lengths = AttentionWindow(tokens=64, layers=3, of_layers=4), np.array([10, 64, 65, 1000])
    visible = [np.tril(np.ones((n, n), dtype=int)) for n in lengths]
    in_window = [each - np.tril(each, -64) for each in visible]
    expected = [2 * (3 * int(part.sum()) + int(whole.sum())) for part, whole in zip(in_window, visible, strict=True)]
    diagonals = 4 * lengths  # which L² counts by half
    assert (attended_pairs(lengths, window) + diagonals).tolist() == pytest.approx(expected, rel=0.01)
    whole, windowed = CostModel(7, 2), CostModel(7, 2, window)
    assert (windowed(lengths[:2]) == 4 * whole(lengths[:2])).all(), "no example of the window's length sees less"
    assert windowed(lengths)[-1] < 4 * 0.4 * whole(lengths)[-1]


@pytest.mark.parametrize("factors", [(0, 0), (1.5, 1), (1, -1), (1, float("nan"))])
def test_a_cost_of_anything_but_integers_is_refused_at_once(factors):
    with pytest.raises(ValueError, match="a cost needs integers"):
        CostModel(*factors)


@pytest.mark.parametrize("deal", [as_drawn, longest_first])
def test_alternatives_deal_every_example_once_in_rows_within_the_budget(deal):
    lengths = np.random.default_rng(0).integers(1, 100, 50)
    laid = rows_in_order(deal(lengths, 4), lengths, 120)
    assert sorted(laid[laid >= 0].tolist()) == list(range(50))
    assert loads(laid, lengths).max() <= 120


@pytest.mark.parametrize(("giants", "tiny", "ranks"), [(14, 1010, 16), (60, 4036, 64), (3, 4093, 8)])
def test_bins_of_many_examples_are_laid_in_little_time(giants, tiny, ranks):
    lengths = np.concatenate([np.full(giants, 4000), np.random.default_rng(0).integers(4, 12, tiny)])
    started = time.process_time()
    laid = balance_step(lengths, COST(lengths), np.full(len(lengths), 2), ranks, 8192)
    assert time.process_time() - started < 10
    assert sorted(laid[laid >= 0].tolist()) == list(range(len(lengths)))
