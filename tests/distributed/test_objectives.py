"""Other objectives and normalisations against a plain-PyTorch reference, on one to three ranks."""

import math
from dataclasses import replace

import pytest
import torch

from sftkey_dist.config.objective import Objective
from sftkey_dist.strategy import Anchor, Replay
from sftkey_dist.training.loop import train_stage
from sftkey_dist.training.steps import anchoring
from sftkey_dist.training.steps.start_predictions import write_part
from tests.distributed.harness import checkpoints_of, make_weighted_store, metrics, run_ranks, weights_of
from tests.distributed.test_exactness import FULL, KEY, assert_same_training, make_job, reference, run, store

__all__ = ["make_job", "store"]  # fixtures
WEIGHTS = (0.0, 1.0, 0.5, 0.5, 0.5, 1.0, 2.0, 1.0)
REASONING, ANSWER = (2, 3, 4), (1, 5, 6, 7)
OBJECTIVES = {
    "dft": Objective(kind="dft"),
    "power": Objective(kind="power", exponent=0.3),
    "entropy": Objective(kind="entropy", exponent=0.5),
    "gated": Objective(min_probability=0.02),
}


def textbook(objective):
    """The loss of a token from probabilities in double precision, as the papers write it."""

    def loss(logits, targets, segments):
        probabilities = torch.softmax(logits.double(), dim=-1)
        p = probabilities.gather(-1, targets[:, None])[:, 0]
        match objective.kind:
            case "dft":
                found = p.detach() * -p.log()
            case "power":
                found = (1 - p**objective.exponent) / objective.exponent
            case "entropy":
                top = probabilities.detach().sort(descending=True).values[:, :20]
                top = top / top.sum(dim=-1, keepdim=True)
                found = (-(top * top.log()).sum(dim=-1) / math.log(20)) ** objective.exponent * -p.log()
            case _:
                found = -p.log()
        found = torch.where(p >= objective.min_probability, found, 0 * found)
        is_reasoning = torch.isin(segments, torch.tensor(REASONING))
        return torch.where(is_reasoning, found, -p.log()).float()

    return loss


def with_stage(job, **changes):
    return job.model_copy(update={"stage": replace(job.stage, **changes)})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_of_one_segment_equals_the_reference(name, store, make_job, tiny_model):
    objectives = tuple(OBJECTIVES[name] if segment in REASONING else Objective() for segment in range(8))
    expected = reference(store, tiny_model, FULL, token_loss=textbook(OBJECTIVES[name]))
    jobs = [
        with_stage(make_job(f"{name}-{place}", **training), objectives=objectives)
        for place, training in (
            ("whole", {}),
            ("chunked", {"logit_chunk_positions": 37, "segment_metrics_every_steps": 1}),
        )
    ]
    run(2, *jobs)
    for job in jobs:
        assert_same_training(job, *expected)
    nll = metrics(jobs[1])[0]["segments"]["reasoning"]["nll"]
    assert nll == pytest.approx(math.log(400), rel=0.2), "metrics are of the likelihood, whatever is minimised"


def test_means_of_segments_equal_the_reference_on_any_ranks(store, make_job, tiny_model):
    expected = reference(store, tiny_model, WEIGHTS, groups=(REASONING, ANSWER))
    groups = tuple(0 if segment in REASONING else 1 for segment in range(8))
    for ranks in (1, 2, 3):
        job = with_stage(make_job(f"segments-{ranks}", weights=WEIGHTS), segment_groups=groups)
        run(ranks, job)
        assert_same_training(job, *expected)
    other = make_job("tokens", weights=WEIGHTS)
    run(2, other)
    assert metrics(other)[0]["loss"] != pytest.approx(expected[0][0], rel=0.05)


def test_weights_of_prompts_and_rows_equal_the_reference_on_any_ranks(make_job, contract, tiny_model, tmp_path):
    weighted = make_weighted_store(tmp_path, contract, tiny_model)
    weights = (0.3, *WEIGHTS[1:])
    expected = reference(weighted, tiny_model, weights)
    of_segments = reference(weighted, tiny_model, weights, groups=((0,), REASONING, ANSWER))
    groups = tuple(2 if segment == 0 else 0 if segment in REASONING else 1 for segment in range(8))

    def job(name, **training):
        return make_job(name, weights=weights, **training).model_copy(update={"store_dir": weighted.path})

    chunked = job("chunked", logit_chunk_positions=37, segment_metrics_every_steps=1)
    by_segment = with_stage(job("segments"), segment_groups=groups)
    rounded = job("bfloat16").model_copy(update={"precision": "bfloat16"})
    run(1, one := job("one"))
    run(2, two := job("two"), chunked, by_segment, rounded)
    run(3, three := job("three"))
    for trained in (one, two, chunked, three):
        assert_same_training(trained, *expected)
    assert_same_training(by_segment, *of_segments)
    losses = [[record["loss"] for record in metrics(trained)] for trained in (two, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    first = metrics(chunked)[0]
    assert first["segments"]["prompt"]["tokens"] == first["loss_tokens"] - sum(
        segment["tokens"] for name, segment in first["segments"].items() if name != "prompt"
    )


ANCHORED = (1, *range(2, 6), 7)


def anchored(job, number):
    return with_stage(job, anchor=Anchor(2.0, tuple(segment in ANCHORED for segment in range(8)), number))


def stop_while_anchoring(job):
    """Ask the stage to stop when a rank has written its first part, which is one row."""

    def write_and_ask(file, predictions):
        write_part(file, predictions)
        (job.stage_dir / "stop_request").touch()

    vars(anchoring).update(_MAX_PART_BYTES=1, write_part=write_and_ask)
    assert not train_stage(job, checkpoints_of(job))
    (job.stage_dir / "stop_request").unlink(missing_ok=True)


def test_an_anchor_to_the_start_equals_the_reference_on_any_ranks(store, make_job, contract, tiny_model, tmp_path):
    expected = reference(store, tiny_model, KEY, anchor=(2.0, ANCHORED, 3))
    one, two, three, broken = (anchored(make_job(f"anchor-{n}", weights=KEY), 3) for n in ("1", "2", "3", "broken"))
    in_chunks = make_job("chunked", weights=KEY, logit_chunk_positions=37, segment_metrics_every_steps=1)
    rounded = anchored(make_job("bfloat16", weights=KEY), 3).model_copy(update={"precision": "bfloat16"})
    weighted = make_weighted_store(tmp_path, contract, tiny_model)
    of_rows = anchored(make_job("rows", weights=KEY), 3).model_copy(update={"store_dir": weighted.path})
    run(1, one)
    run(2, two, chunked := anchored(in_chunks, 3), rounded, of_rows)
    run_ranks(2, stop_while_anchoring, broken)
    written = {file.name: file.stat().st_mtime_ns for file in (broken.stage_dir / "anchor").iterdir()}
    assert len(written) == 2, "a part of each rank"
    run(2, broken, stop_after_steps=7)
    run(3, three, broken)
    kept = {file.name: file.stat().st_mtime_ns for file in (broken.stage_dir / "anchor").iterdir()}
    assert kept.items() > written.items(), "what was written before the stop is used"
    for trained in (one, two, three, chunked, broken):
        assert_same_training(trained, *expected)
    assert_same_training(of_rows, *reference(weighted, tiny_model, KEY, anchor=(2.0, ANCHORED, 3)))
    records = metrics(two)
    assert [record["loss"] for record in metrics(rounded)] == pytest.approx([r["loss"] for r in records], rel=0.02)
    divergences = [record["divergence"] for record in records]
    assert abs(divergences[0]) < 1e-5 < 1e-4 < max(divergences)


def test_an_anchor_that_keeps_the_whole_vocabulary_is_the_exact_divergence(store, make_job, tiny_model):
    exact = anchored(make_job("exact", weights=KEY), 1000)
    run(2, exact)
    assert_same_training(exact, *reference(store, tiny_model, KEY, anchor=(2.0, ANCHORED, 1000)))


def test_steps_that_replay_the_stage_before_equal_the_reference(store, make_job, tiny_model):
    expected = reference(store, tiny_model, KEY, replay=(3, FULL))
    jobs = {ranks: with_stage(make_job(f"replay-{ranks}", weights=KEY), replay=Replay(3, FULL)) for ranks in (1, 2)}
    for ranks, job in jobs.items():
        run(ranks, job)
        assert_same_training(job, *expected)
    counts = [record["loss_tokens"] for record in metrics(jobs[2])]
    assert min(counts[2::3]) > 10 * max(counts[0::3])


def test_in_bfloat16_replayed_steps_are_those_of_float32_to_its_accuracy(make_job):
    jobs = [
        with_stage(make_job(f"replay-{precision}", weights=KEY), replay=Replay(3, FULL)).model_copy(
            update={"precision": precision}
        )
        for precision in ("float32", "bfloat16")
    ]
    run(2, *jobs)
    exact, rounded = ([record["loss"] for record in metrics(job)] for job in jobs)
    assert rounded == pytest.approx(exact, rel=0.02)
    assert {value.dtype for value in weights_of(jobs[1].stage_dir / "model").values()} == {torch.bfloat16}


def test_in_bfloat16_objectives_are_those_of_float32_to_its_accuracy(make_job):
    objectives = tuple(OBJECTIVES["entropy"] if segment in REASONING else OBJECTIVES["dft"] for segment in range(8))
    jobs = [
        with_stage(make_job(precision), objectives=objectives).model_copy(update={"precision": precision})
        for precision in ("float32", "bfloat16")
    ]
    run(2, *jobs)
    exact, rounded = ([record["loss"] for record in metrics(job)] for job in jobs)
    assert rounded == pytest.approx(exact, rel=0.02)
    assert {value.dtype for value in weights_of(jobs[1].stage_dir / "model").values()} == {torch.bfloat16}
