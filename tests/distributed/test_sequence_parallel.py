"""Ranks that compute a row together against the plain-PyTorch reference, and against ranks that do not."""

from pathlib import Path

import pytest
import torch
import transformers
from torch.multiprocessing import ProcessRaisedException

from sftkey_dist.config.objective import Objective
from sftkey_dist.config.training import LoraConfig, ZeroConfig
from sftkey_dist.strategy import Anchor
from sftkey_dist.training.forward.sequence_group import SequenceGroup
from sftkey_dist.training.loop import train_stage
from tests.distributed.harness import (
    checkpoints_of,
    make_model,
    metrics,
    run_ranks,
    share_of_update_apart,
    weights_of,
)
from tests.distributed.test_architectures import ARCHITECTURES, SMALL
from tests.distributed.test_exactness import FULL, KEY, assert_same_training, make_job, reference, run, store
from tests.distributed.test_objectives import with_stage
from tests.stage_job import with_optimization

__all__ = ["make_job", "store"]  # fixtures
pytestmark = pytest.mark.long
STEPS = 6
# Four heads of attention and two of keys, fewer than there are ranks.
TIED = transformers.Qwen2Config(**SMALL, num_hidden_layers=2, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), TIED, tiny_model, seed=1)


def assert_equal_training(job, other, loss_tolerance=1e-5, weight_tolerance=1e-4) -> None:
    losses, norms = ([record[key] for record in metrics(other)] for key in ("loss", "grad_norm"))
    assert_same_training(job, losses, norms, weights_of(other.stage_dir / "model"), loss_tolerance, weight_tolerance)


def short(job, **changes):
    """A stage of few steps: ranks outnumber the cores of most machines that run these tests."""
    return with_optimization(job, **{"max_steps": STEPS, "warmup_ratio": 2 / STEPS} | changes)


def test_both_stages_equal_the_reference_whatever_number_of_ranks_shares_a_row(store, make_job, model):
    expected = reference(store, model, FULL, num_steps=STEPS)
    two = {"sequence_parallel_ranks": 2}
    four = {"sequence_parallel_ranks": 4, "gradient_checkpointing": True, "micro_batch_tokens": 2048}
    jobs = [
        short(make_job("two", model, **two, segment_metrics_every_steps=1)),
        short(make_job("four", model, **four)),
        short(make_job("gathered", model, **two, zero=ZeroConfig(), logit_chunk_positions=5)),
    ]
    run(4, *jobs)
    for job in jobs:
        assert_same_training(job, *expected)

    hand_off = jobs[0].stage_dir / "model"
    of_answers = reference(store, hand_off, KEY, num_steps=STEPS)
    # One example a step: a group of ranks has a dummy row, and of the other group most ranks hold no answer.
    one_by_one = short(make_job("one-example", model, KEY, **two), global_batch_size=1)
    key_job = short(make_job("key-four", hand_off, KEY, **four, logit_chunk_positions=1))
    run(4, key_job, one_by_one)
    assert_same_training(key_job, *of_answers)
    assert_same_training(one_by_one, *reference(store, model, KEY, batch=1, num_steps=STEPS))
    for record in metrics(key_job):
        assert record["segments"]["answer"]["tokens"] == record["loss_tokens"], "each was counted on one rank"


def test_a_stage_resumes_with_another_number_of_ranks_for_a_row(make_job, model):
    whole, *broken = (short(make_job(name, model, checkpoint_every_steps=3)) for name in ("whole", "two", "four"))
    two, four = (with_ranks_of_a_row(job, ranks) for job, ranks in zip(broken, (2, 4), strict=True))
    run(2, whole)
    run(4, two, four, stop_after_steps=3)
    run(4, with_ranks_of_a_row(two, 4))
    run(2, with_ranks_of_a_row(four, 1))
    for job in (two, four):
        assert_equal_training(job, whole)


def with_ranks_of_a_row(job, ranks: int):
    training = job.training.model_copy(update={"sequence_parallel_ranks": ranks})
    return job.model_copy(update={"training": training})


@pytest.mark.parametrize("name", ["qwen3-untied", "qwen2-sliding", "gemma2", "gpt-oss"])
def test_windows_bounded_scores_sinks_and_experts_compute_the_same_in_parts(name, make_job, tiny_model, tmp_path):
    model = make_model(tmp_path / "model", ARCHITECTURES[name], tiny_model, seed=1)
    whole = short(make_job("whole", model), max_steps=2)
    parts = short(make_job("parts", model, sequence_parallel_ranks=2), max_steps=2)
    run(2, whole, parts)
    assert_equal_training(parts, whole)


def test_adapters_anchors_and_objectives_compute_the_same_in_parts(make_job, model):
    entropy = tuple(Objective(kind="entropy", exponent=0.5) for _ in range(8))
    changes = {
        "anchored": {"anchor": Anchor(0.5, tuple(segment in (2, 3, 4) for segment in range(8)), 8)},
        "adapted": {"objectives": entropy},
    }
    lora = {"adapted": LoraConfig(rank=4, alpha=4.0)}
    jobs = {
        name: {
            ranks: with_stage(short(make_job(f"{name}-{ranks}", model, FULL, lora=lora.get(name))), **stage)
            for ranks in (1, 2)
        }
        for name, stage in changes.items()
    }
    run(2, *(with_ranks_of_a_row(job, ranks) for of_name in jobs.values() for ranks, job in of_name.items()))
    for of_name in jobs.values():
        assert_equal_training(of_name[2], of_name[1])
    assert metrics(jobs["anchored"][2])[-1]["divergence"] == pytest.approx(
        metrics(jobs["anchored"][1])[-1]["divergence"], rel=1e-3
    )


def test_in_bfloat16_parts_and_chunked_blocks_compute_the_same_but_for_rounding(make_job, model):
    settings = {
        "whole": {},
        "parts": {"sequence_parallel_ranks": 2, "gradient_checkpointing": True},
        "chunked": {"mlp_chunk_tokens": 100},
    }
    jobs = {
        name: short(make_job(name, model, **training)).model_copy(update={"precision": "bfloat16"})
        for name, training in settings.items()
    }
    run(2, *jobs.values())
    whole, exported = metrics(jobs["whole"]), jobs["whole"].stage_dir / "model"
    for name in ("parts", "chunked"):
        records = metrics(jobs[name])
        assert [record["loss"] for record in records] == pytest.approx([r["loss"] for r in whole], rel=2e-3)
        assert [record["grad_norm"] for record in records] == pytest.approx([r["grad_norm"] for r in whole], rel=2e-2)
        other = jobs[name].stage_dir / "model"
        assert {weight.dtype for weight in weights_of(other).values()} == {torch.bfloat16}
        assert share_of_update_apart(exported, other, model) < 0.15, "of the exported folders"


def test_parts_that_do_not_exchange_what_they_should_are_found_before_the_first_step(make_job, model):
    job = short(make_job("broken", model, sequence_parallel_ranks=2))
    with pytest.raises(ProcessRaisedException, match="does not compute the same when several ranks share a row"):
        run_ranks(2, train_without_exchange, job)


def train_without_exchange(job) -> None:
    """What a model does whose attention does not pass on what other ranks hold."""
    SequenceGroup._exchange = lambda self, by_rank: by_rank  # type: ignore[method-assign]
    train_stage(job, checkpoints_of(job))
