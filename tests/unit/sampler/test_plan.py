import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkey_dist.sampler import CostModel, StepPlanner, count_trained
from sftkey_dist.sampler.balance import balance_step
from sftkey_dist.sampler.order import shuffled_indices
from sftkey_dist.sampler.preview import preview
from sftkey_dist.sampler.stats import loads

COST = CostModel.for_decoder(64, 192, 4, 2, 16)
WEIGHTS = (0.0, 1.0, 2.0)


def random_counts(num_examples, seed=0, longest=60):
    stream = np.random.default_rng(seed)
    return np.stack(
        [
            stream.integers(1, longest, num_examples),
            stream.integers(0, longest, num_examples),
            stream.integers(1, 4, num_examples),
        ],
        axis=1,
    ).astype(np.int32)


def planner(counts, **changes):
    settings = {
        "seed": 1,
        "global_batch_size": 16,
        "num_epochs": 2,
        "max_steps": None,
        "look_ahead_steps": 4,
        "data_ranks": 3,
        "micro_batch_tokens": 200,
        "cost": COST,
    } | changes
    return StepPlanner(counts, settings.pop("weights", WEIGHTS), **settings)


@given(
    num_examples=st.integers(1, 70),
    batch=st.integers(1, 40),
    ranks=st.integers(1, 9),
    budget=st.integers(125, 600),
    window=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None)
def test_every_example_once_an_epoch_in_equal_micro_batches_within_budget(
    num_examples, batch, ranks, budget, window, seed
):
    counts = random_counts(num_examples, seed)
    plan = planner(
        counts,
        seed=seed,
        global_batch_size=batch,
        look_ahead_steps=window,
        data_ranks=ranks,
        micro_batch_tokens=budget,
    )
    lengths = counts.sum(axis=1)
    seen = [[], []]
    for step in range(plan.num_steps):
        planned = plan.plan(step)
        laid = [planned.micro_batches(rank) for rank in range(ranks)]
        assert len({len(rank) for rank in laid}) == 1
        assert len(planned.example_indices) == min(batch, num_examples - (step % plan.steps_per_epoch) * batch)
        assert all(lengths[list(content)].sum() <= budget for rank in laid for content in rank)
        members = planned.example_indices
        assert planned.loss_weight == pytest.approx((counts[members] @ np.array(WEIGHTS)).sum())
        assert planned.segment_counts == tuple(counts[members].sum(axis=0))
        assert sorted(index for rank in laid for content in rank for index in content) == members
        seen[planned.epoch] += members
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(num_examples))


def test_members_of_a_step_do_not_depend_on_ranks_or_budget():
    counts = random_counts(100)
    one, many = planner(counts, data_ranks=1, micro_batch_tokens=120), planner(counts, data_ranks=7)
    for step in range(one.num_steps):
        assert one.plan(step).example_indices == many.plan(step).example_indices
        assert one.plan(step).loss_weight == many.plan(step).loss_weight
        assert one.plan(step).members_digest == many.plan(step).members_digest
        assert one.plan(step).layout_digest != many.plan(step).layout_digest


def test_epochs_and_seeds_are_shuffled_differently():
    orders = [tuple(shuffled_indices(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_order_is_pinned_across_machines_and_versions():
    assert shuffled_indices(12, seed=7, epoch=2).tolist() == [5, 10, 11, 9, 8, 3, 6, 4, 1, 0, 7, 2]


def test_shuffle_is_uniform_enough():
    """Mean position of each example over many epochs stays within 5 standard errors of the middle."""
    positions = np.array([np.argsort(shuffled_indices(40, 0, epoch)) for epoch in range(500)])
    standard_error = np.sqrt((40**2 - 1) / 12 / 500)
    assert np.abs(positions.mean(axis=0) - 19.5).max() < 5 * standard_error


def test_plan_is_the_same_in_another_process():
    script = (
        "import numpy as np; from sftkey_dist.sampler import *\n"
        "c = np.arange(1, 181, dtype=np.int32).reshape(60, 3) % 37 + 1\n"
        "p = StepPlanner(c, (0.0, 1.0, 2.0), seed=1, global_batch_size=16, num_epochs=2, max_steps=None,"
        " look_ahead_steps=4,"
        " data_ranks=3, micro_batch_tokens=200, cost=CostModel(768, 1))\n"
        "print([p.plan(s).layout_digest for s in range(p.num_steps)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_sampler_needs_neither_torch_nor_ray():
    script = "import sys, sftkey_dist.sampler; print({'torch', 'ray', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tokens_and_loss_are_level_together_near_what_any_assignment_could_reach():
    """64 ranks x 8 examples shaped like GSM8K; answers are integers, so their bound lies above 1."""
    stream = np.random.default_rng(0)
    ranks, per_rank, tokens, answers, in_order = 64, 8, [], [], []
    for _ in range(20):
        lengths, weights = (
            stream.gamma(12, 16, ranks * per_rank).astype(int) + 1,
            stream.geometric(0.45, ranks * per_rank),
        )
        laid = balance_step(lengths, COST(lengths), weights, ranks, 8192)
        token_loads, answer_loads = (loads(laid, values).sum(axis=1) for values in (lengths, weights))
        tokens.append(max(token_loads) / np.mean(token_loads))
        answers.append(max(answer_loads) / max(-(-weights.sum() // ranks), weights.max()))
        in_order.append(lengths.reshape(ranks, per_rank).sum(axis=1).max() / np.mean(token_loads))
    assert np.mean(tokens) < 1.02
    assert np.mean(answers) < 1.02
    assert np.mean(in_order) > 1.2, "the control: as they come, ranks are far from level"


def test_loss_tokens_are_dealt_level_when_costs_are_equal():
    lengths, weights = np.full(16, 100), np.array([8, 8, 1, 1] * 4)
    laid = balance_step(lengths, COST(lengths), weights, 4, 100)
    assert loads(laid, weights).sum(axis=1).tolist() == [18, 18, 18, 18]


def test_fewer_examples_than_ranks_leaves_dummies():
    lengths = np.array([10, 20])
    laid = balance_step(lengths, COST(lengths), np.ones(2, dtype=int), 4, 100)
    assert sorted((laid >= 0).sum(axis=(1, 2)).tolist()) == [0, 0, 1, 1]


def heavy_tailed_counts(num_examples):
    """60 % labels of 1-3 tokens, 40 % log-normal answers to 400."""
    stream = np.random.default_rng(0)
    is_label = stream.random(num_examples) < 0.6
    long = np.clip(stream.lognormal(4, 1, num_examples), 1, 400)
    answers = np.where(is_label, stream.integers(1, 4, num_examples), long.astype(int))
    return np.stack([stream.integers(20, 400, num_examples), np.zeros(num_examples, int), answers], axis=1)


def test_look_ahead_levels_steps_within_its_window_and_knows_no_ranks():
    counts = heavy_tailed_counts(1024)
    plain, ahead, other_ranks = (
        planner(counts, look_ahead_steps=window, data_ranks=ranks, micro_batch_tokens=1000, num_epochs=1)
        for window, ranks in ((1, 2), (4, 2), (4, 5))
    )
    spread = {}
    for name, plan in (("plain", plain), ("ahead", ahead)):
        weights = [plan.plan(step).loss_weight for step in range(plan.num_steps)]
        spread[name] = np.std(weights) / np.mean(weights)
    assert spread["ahead"] < 0.7 * spread["plain"]
    for start in range(0, plain.num_steps, 4):
        window = range(start, start + 4)
        before, after, elsewhere = (
            [plan.plan(step).example_indices for step in window] for plan in (plain, ahead, other_ranks)
        )
        assert sorted(chain.from_iterable(before)) == sorted(chain.from_iterable(after))
        assert after == elsewhere


@pytest.mark.slow
def test_look_ahead_keeps_every_example_equally_likely_anywhere():
    """Mean step of each example over many epochs stays within 5 standard errors of the middle."""
    counts, epochs = heavy_tailed_counts(64), 300
    plan = planner(counts, global_batch_size=8, num_epochs=epochs, micro_batch_tokens=4000)
    steps = np.zeros((epochs, 64))
    for step in range(plan.num_steps):
        planned = plan.plan(step)
        steps[planned.epoch, planned.example_indices] = step % plan.steps_per_epoch
    standard_error = np.sqrt((8**2 - 1) / 12 / epochs)
    assert np.abs(steps.mean(axis=0) - 3.5).max() < 5 * standard_error


def test_straggler_loss_is_the_share_of_time_spent_waiting():
    counts = np.array([[1, 0, 9], [1, 0, 9], [1, 0, 9]])
    (plan,) = [planner(counts, global_batch_size=3, data_ranks=2, num_epochs=1, cost=CostModel(1, 0)).plan(0)]
    assert plan.balance.straggler_loss == pytest.approx(1 - 15 / 20)


@pytest.mark.parametrize("first_step", [0, 3, 6, 12])
def test_the_remainder_is_the_same_from_any_step_on_and_in_any_order(first_step):
    counts = random_counts(100)
    whole = [plan.layout_digest for plan in planner(counts).plans()]
    assert [plan.layout_digest for plan in planner(counts).plans(first_step)] == whole[first_step:]
    backwards = planner(counts)
    assert [backwards.plan(step).layout_digest for step in reversed(range(len(whole)))] == whole[::-1]


def test_fractional_weights_are_levelled_and_their_sum_is_exact():
    counts = random_counts(64)
    plan = StepPlanner(
        counts,
        (0.0, 0.1, 1.0),
        seed=0,
        global_batch_size=64,
        num_epochs=1,
        max_steps=None,
        look_ahead_steps=1,
        data_ranks=4,
        micro_batch_tokens=4000,
        cost=COST,
    ).plan(0)
    assert plan.loss_weight == pytest.approx(0.1 * counts[:, 1].sum() + counts[:, 2].sum(), rel=1e-15)
    assert plan.balance.loss_weight < 1.01


def test_a_preview_sets_the_plan_beside_plain_ways_on_the_same_steps():
    rows = {row.side: row for row in preview(planner(heavy_tailed_counts(512), micro_batch_tokens=4000), 8)}
    ours, drawn, longest = (rows[name] for name in ("segment-aware", "as drawn", "longest first"))
    assert ours.examples_per_rank == pytest.approx(16 / 3)
    assert ours.balance.loss_weight < longest.balance.loss_weight
    assert ours.balance.straggler_loss < drawn.balance.straggler_loss
    assert ours.balance.tokens < drawn.balance.tokens


def test_examples_without_a_token_that_is_trained_are_left_out():
    counts = random_counts(50)
    counts[::5, 1:] = 0
    plan = planner(counts, num_epochs=1)
    planned = sorted(chain.from_iterable(step.example_indices for step in plan.plans()))
    assert planned == [index for index in range(50) if index % 5]
    assert count_trained(counts, WEIGHTS) == len(planned)


@pytest.mark.parametrize("name", ["global_batch_size", "look_ahead_steps", "data_ranks", "micro_batch_tokens"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        planner(random_counts(10), **{name: 0})


def test_max_steps_cuts_the_stage():
    assert planner(random_counts(100), max_steps=5).num_steps == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:0], "no examples"),
        (lambda c: np.where(np.arange(3) == 0, 0, c), "prompt token"),
        (lambda c: c * 100, "over the budget"),
        (lambda c: np.where(np.arange(3) == 0, c, 0), "no example has a token with a positive loss weight"),
    ],
)
def test_hostile_inputs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        planner(change(random_counts(30)))


def test_denominators_count_what_is_predicted_with_the_weight_of_its_row():
    counts, rows = random_counts(40), np.random.default_rng(3).choice([0.0, 0.25, 1.0, 30.0], 40)
    weights = (0.5, *WEIGHTS[1:])
    plan = planner(counts, weights=weights, num_epochs=1, example_weights=rows)
    planned = sorted(chain.from_iterable(step.example_indices for step in plan.plans()))
    assert planned == np.flatnonzero(rows).tolist()
    for step in plan.plans():
        members = step.example_indices
        of_rows = (counts[members] - np.eye(1, counts.shape[1], dtype=int)) @ np.array(weights)
        assert step.loss_weight == pytest.approx(of_rows @ rows[members])
        assert step.target_counts == tuple(counts[members].sum(axis=0) - [len(members), *[0] * (counts.shape[1] - 1)])


def test_a_trained_prompt_counts_but_for_the_first_token_of_each_example():
    counts, weights = random_counts(20), (0.5, 1.0, 2.0)
    plans = list(planner(counts, weights=weights, num_epochs=1).plans())
    for plan in plans:
        of_step = counts[plan.example_indices].astype(float)
        assert plan.loss_weight == pytest.approx(((of_step - [1, 0, 0]) @ weights).sum())
        assert plan.target_counts == plan.weighted_targets
    same = planner(counts, weights=weights, num_epochs=1, example_weights=np.ones(20, np.float32))
    assert [plan.loss_weight for plan in same.plans()] == pytest.approx([plan.loss_weight for plan in plans])


def test_a_weight_may_be_so_small_that_rounding_would_leave_nothing_of_it():
    counts = np.array([[2, 1, 0], [2, 0, 1]])
    assert count_trained(counts, (0.0, 1e-6, 1.5)) == 2
    assert count_trained(counts, (0.0, 1.0, 1.0), example_weights=np.array([1.0, 1e-12])) == 2


def test_digests_tell_apart_what_ranks_and_resumed_stages_must_agree_on():
    counts = random_counts(64)
    (first, second), (two_ranks, _) = (
        list(planner(counts, max_steps=2, **more).plans()) for more in ({}, {"data_ranks": 2})
    )
    other, weighted = (next(planner(counts, **more).plans()) for more in ({"seed": 2}, {"weights": (0.0, 1.0, 3.0)}))
    assert len({plan.members_digest for plan in (first, second, other)}) == 3
    assert first.members_digest == two_ranks.members_digest != other.members_digest
    assert len({plan.layout_digest for plan in (first, second, two_ranks, other, weighted)}) == 5
    assert replace(first, loss_weight=first.loss_weight + 1).layout_digest != first.layout_digest
