"""Projected gradients of segments against the paper's algorithm in plain PyTorch, on one to three ranks."""

import peft
import pytest
import torch
from transformers import set_seed

from sftkey_dist.config.training import LoraConfig, ZeroConfig
from sftkey_dist.training.steps.projection import projection_orders
from tests.distributed.harness import make_weighted_store, metrics, share_of_update_apart, weights_of
from tests.distributed.test_exactness import KEY, assert_same_training, make_job, reference, run, store
from tests.distributed.test_objectives import ANSWER, REASONING, with_stage
from tests.stage_job import with_optimization

__all__ = ["make_job", "store"]  # fixtures
pytestmark = pytest.mark.long
WEIGHTS = (0.3, 1.0, 0.5, 0.5, 0.5, 1.0, 2.0, 1.0)
PARTS = ((0,), REASONING, ANSWER)
NUM_STEPS = 8
LAYOUTS = {
    "offloaded": {
        "zero": ZeroConfig(offload="cpu", max_gathered_gib=0, sub_group_elements=20_000),
        "logit_chunk_positions": 37,
        "segment_metrics_every_steps": 1,
    },
    "shared": {
        "zero": ZeroConfig(max_gathered_gib=0, secondary_partition_ranks=2),
        "sequence_parallel_ranks": 2,
    },
}


def orders(step):
    return projection_orders(len(PARTS), 5, step)


def adapt(model):
    set_seed(5)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16.0, target_modules="all-linear")
    return peft.get_peft_model(model, config)


def projections(job):
    return [record["projection"] for record in metrics(job)]


def test_projected_gradients_equal_the_reference_on_any_ranks(make_job, contract, tiny_model, tmp_path):
    weighted = make_weighted_store(tmp_path, contract, tiny_model)

    def job(name, *start, **training):
        made = make_job(name, *start, checkpoint_every_steps=4, **training)
        made = with_optimization(made.model_copy(update={"store_dir": weighted.path}), max_steps=NUM_STEPS)
        return with_stage(made, weights=WEIGHTS, project_conflicts=True)

    # A model that has learned the answers alone: what teaches it the rest hurts them.
    of_answers = with_stage(with_optimization(job("answers"), max_steps=40), weights=KEY, project_conflicts=False)
    start = of_answers.stage_dir / "model"
    one, three, broken = job("one", start), job("three", start), job("broken", start, **LAYOUTS["offloaded"])
    of_layouts = [job(name, start, **layout) for name, layout in LAYOUTS.items()]
    rounded = job("bfloat16", start).model_copy(update={"precision": "bfloat16"})
    adapted = job("adapted", start, lora=LoraConfig(rank=4, alpha=16.0))
    run(1, of_answers, one)
    run(2, broken, stop_after_steps=4)
    run(2, *of_layouts, rounded, adapted, broken)
    run(3, three)

    projected = {"num_steps": NUM_STEPS, "project": (PARTS, orders)}
    expected = reference(weighted, start, WEIGHTS, **projected)
    for trained in (one, *of_layouts, three):
        assert_same_training(trained, *expected)
    assert_same_training(adapted, *reference(weighted, start, WEIGHTS, **projected, adapt=adapt))
    _, norms, _ = reference(weighted, start, WEIGHTS, num_steps=4)
    assert expected[1][:4] != pytest.approx(norms, rel=0.02), "nothing was projected, so equality would show little"
    for trained in (one, adapted):
        assert max(projection["conflicts"] for projection in projections(trained)) > 1, "their order was not compared"
    losses = [[record["loss"] for record in metrics(trained)] for trained in (one, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    exported = rounded.stage_dir / "model"
    assert {weight.dtype for weight in weights_of(exported).values()} == {torch.bfloat16}
    assert share_of_update_apart(one.stage_dir / "model", exported, start) < 0.15
    whole = of_layouts[0]
    for file in ("metrics.jsonl", "model/model.safetensors"):
        assert (broken.stage_dir / file).read_bytes() == (whole.stage_dir / file).read_bytes()
    for record in metrics(whole):
        of_segments = {name: segment["tokens"] for name, segment in record["segments"].items()}
        assert sum(of_segments.values()) == record["loss_tokens"], "each token was measured in one pass"


def test_without_a_conflict_a_step_is_the_plain_one_whatever_dropout_draws(make_job):
    lora = LoraConfig(rank=4, dropout=0.5)
    plain, same = (with_optimization(make_job(name, lora=lora), max_steps=2) for name in ("plain", "same"))
    same = with_stage(same, project_conflicts=True)
    run(2, plain, same)
    assert [projection["conflicts"] for projection in projections(same)] == [0, 0]
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in metrics(same)] == pytest.approx([r[key] for r in metrics(plain)], rel=1e-5)
    first = projections(same)[0]["gradients"]
    assert set(first["norms"]) == {"reasoning", "answer"}
    assert first["cosines"]["reasoning and answer"] > 0
