"""The gradients of segments, compared on any ranks, against those of one process."""

import itertools

import pytest
import torch
import transformers

from sftkey_dist.config.training import ZeroConfig
from sftkey_dist.sampler.order import shuffled_indices
from tests.distributed.harness import metrics, weights_of
from tests.distributed.test_exactness import BATCH, FULL, KEY, make_job, run, store
from tests.stage_job import with_optimization

__all__ = ["make_job", "store"]  # fixtures
SEGMENTS = {"reasoning": (2, 3, 4), "answer": (1, 5, 6, 7)}


def in_one_process(model_dir, store):
    """Norms and the cosine of textbook gradients of the first step's examples."""
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    gradients = {}
    for name, ids in SEGMENTS.items():
        nll = []
        for index in shuffled_indices(len(store), 5, 0)[:BATCH].tolist():
            tokens, segments = (torch.tensor(part) for part in store.example(index))
            log_probabilities = torch.log_softmax(model(input_ids=tokens[None]).logits[0, :-1], dim=-1)
            of_tokens = -log_probabilities.gather(1, tokens[1:, None])[:, 0]
            nll.append(of_tokens[torch.isin(segments[1:], torch.tensor(ids))])
        of_weights = torch.autograd.grad(torch.cat(nll).mean(), list(model.parameters()))
        gradients[name] = torch.cat([gradient.flatten() for gradient in of_weights])
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    one, other = gradients.values()
    return norms, float(one @ other / (one.norm() * other.norm()))


def test_gradients_of_segments_are_those_of_one_process_and_training_goes_on_as_without(store, make_job, tiny_model):
    norms, cosine = in_one_process(tiny_model, store)
    layouts = {
        1: [{}],
        2: [
            {},
            {"zero": ZeroConfig()},
            {"zero": ZeroConfig(offload="cpu", max_gathered_gib=0)},
            {"sequence_parallel_ranks": 2, "logit_chunk_positions": 7},
        ],
    }
    plain = with_optimization(make_job("plain", weights=KEY), max_steps=4)
    jobs = {
        ranks: [
            with_optimization(
                make_job(f"{ranks}-{number}", weights=KEY, gradient_cosines_every_steps=2, **layout), max_steps=4
            )
            for number, layout in enumerate(of_ranks)
        ]
        for ranks, of_ranks in layouts.items()
    }
    run(2, plain, *jobs[2])
    run(1, *jobs[1])
    expected = metrics(plain)
    for job in itertools.chain(*jobs.values()):
        records = metrics(job)
        assert [record["step"] for record in records if "gradients" in record] == [0, 2]
        found = records[0]["gradients"]
        assert found["norms"] == pytest.approx(norms, rel=1e-4)
        assert found["cosines"] == {"reasoning and answer": pytest.approx(cosine, abs=1e-4)}
        for key in ("loss", "grad_norm"):
            assert [record[key] for record in records] == pytest.approx([e[key] for e in expected], rel=1e-5)
        trained, whole = weights_of(job.stage_dir / "model"), weights_of(plain.stage_dir / "model")
        assert max(float((trained[name] - whole[name]).abs().max()) for name in whole) < 1e-4


def test_a_stage_that_compares_gradients_resumes_to_the_same_bytes(make_job):
    whole, broken = (
        with_optimization(make_job(name, weights=FULL, gradient_cosines_every_steps=3), max_steps=8)
        for name in ("whole", "broken")
    )
    run(2, whole)
    run(2, broken, stop_after_steps=7)
    run(2, broken)
    assert (broken.stage_dir / "metrics.jsonl").read_bytes() == (whole.stage_dir / "metrics.jsonl").read_bytes()
