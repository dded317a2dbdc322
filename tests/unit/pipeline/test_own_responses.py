"""A stage on the model's own responses: which are accepted, what is encoded of them, and when that is done again."""

import json
from contextlib import contextmanager

import numpy as np
import pytest

from sftkey_dist.config.run import RunConfig
from sftkey_dist.digests import FileNote
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.pipeline.own_data import responses as own_responses
from sftkey_dist.pipeline.own_data.responses import with_own_responses
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.run_dir.artifacts.evaluation import GENERATIONS, GenerationRecord
from sftkey_dist.run_dir.artifacts.training import SAMPLED_ROWS, SUMMARY, YIELD
from sftkey_dist.sampler.cost import CostModel
from tests.records import stage_summary

NUM_ROWS = 24
FULL = {"name": "full", "weights": {"reasoning": 1.0, "tags": 1.0, "answer": 1.0, "end_of_turn": 1.0}}
LONG = "a long way " * 60


def response(answer, reasoning="in my own words", is_cut_off=False):
    return Generation(f"<Thinking>{reasoning}</Thinking>\n<Answer>{answer}</Answer>", 9, is_cut_off)


KINDS = (
    ("wrong_answer", "accepted"),
    ("accepted", "accepted"),
    ("broken_structure", "truncated"),
    ("too_long", "accepted"),
    ("too_long", "wrong_answer"),
    ("special_token_in_text", "broken_structure"),
)
"""Outcomes of the two samples of a row, by the remainder of its number."""


class Pool:
    """Generates what the outcomes ask for, without a model, and counts how often it is asked."""

    asked = 0

    def generate(self, job, examples, folder, progress):
        assert job.decoding.num_samples == 2
        assert job.decoding.temperature == 1.0
        folder.mkdir(parents=True, exist_ok=True)
        Pool.asked += 1
        records = [GenerationRecord(e.data_set, e.id, tuple(samples_of(e))) for e in examples]
        GENERATIONS.append(folder / "generations.jsonl", reversed(records))


def samples_of(example):
    right, number = example.values["answer"], int(example.id.rpartition(":")[2])
    made = {
        "wrong_answer": response("never"),
        "broken_structure": Generation(f"<Thinking>so</Thinking>{right}", 9, False),
        "truncated": response(right, is_cut_off=True),
        "too_long": response(right, LONG),
        "special_token_in_text": response(right, "a <|im_end|> in it"),
        "accepted": response(right, f"my own way to {number}"),
    }
    return [made[outcome] for outcome in KINDS[number % len(KINDS)]]


@pytest.fixture
def settings(tmp_path, tiny_model):
    rows = [
        {"prompt": f"Case {n}?", "reasoning": f"It is {n}.", "answer": ("yes", "no")[n % 2], "weight": 1 + n % 3}
        for n in range(1, NUM_ROWS + 1)
    ]
    for name, some in {
        "one": rows[:18],
        "two": rows[18:],
        "test": [rows[0] | {"prompt": "Another?", "answer": "7"}],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    source = {"adapter": "records", "loss_weight_column": "weight"}
    return {
        "run_dir": str(tmp_path / "run"),
        "model": {"path": str(tiny_model)},
        "data": {
            "train": [
                source | {"path": str(tmp_path / "one.jsonl")},
                source | {"path": str(tmp_path / "two.jsonl"), "weight": 2.0},
            ],
            "test": {"adapter": "records", "path": str(tmp_path / "test.jsonl")},
            "max_length_tokens": 200,
            "num_workers": 1,
            "store_dir": str(tmp_path / "store"),
        },
        "strategies": [
            {
                "name": "own",
                "stages": [
                    FULL,
                    {"name": "key", "weights": {"answer": 1.0}, "data": {"from": "previous", "samples": 2}},
                ],
            }
        ],
        "optimization": {"global_batch_size": 4, "num_epochs": 2},
        "validation": {"num_examples": 5},
        "training": {"precision": "float32"},
    }


@pytest.fixture
def sampled(settings, monkeypatch):
    """Plan the stage, and sample for it: the stage before, after, and the folder of what was sampled."""
    Pool.asked = 0
    monkeypatch.setattr(own_responses, "generation_pool", contextmanager(lambda config: iter([Pool()])))

    def make(data=None, weights="a", **changes):
        own = json.loads(json.dumps(settings | changes))
        own["strategies"][0]["stages"][1]["data"] |= data or {}
        config = RunConfig.model_validate(own)
        plan = plan_run(config, prepare(config))
        (first, planned) = plan.strategies[0].stages
        files = {"model.safetensors": FileNote(bytes=1, sha256=64 * weights)}
        SUMMARY.write(first.directory.summary, stage_summary(model_files=files))
        found = with_own_responses(plan, planned, planned.stage.data)
        return planned, found, found.data.store.path.parent

    return make


def content(store):
    return [tuple(part.tolist() for part in store.example(index)) for index in range(len(store))]


def numbers(store):
    """The place of each row among all rows: the two files have lines of their own."""
    return [int(name.rpartition(":")[2]) for name in store.ids]


def test_a_row_trains_its_first_accepted_response_and_otherwise_its_reference(sampled, tiny_model):
    before, after, folder = sampled()
    references, own = before.data.store, after.data.store
    assert own.ids == references.ids
    assert np.array_equal(own.hashes, references.hashes)
    assert np.array_equal(own.loss_weights, references.loss_weights)
    assert np.array_equal(after.data.held_out, before.data.held_out)
    assert len(after.data.held_out) >= 5
    tokenizer, is_own = load_tokenizer(tiny_model), []
    for index, (number, mine, reference) in enumerate(
        zip(numbers(own), content(own), content(references), strict=True)
    ):
        is_own.append(mine != reference)
        is_sampled = index not in after.data.held_out
        assert is_own[-1] == (is_sampled and "accepted" in KINDS[number % len(KINDS)])
        if is_own[-1]:
            prompt = tokenizer.decode(reference[0]).partition("<Thinking>")[0]
            text = tokenizer.decode(mine[0])
            assert text.startswith(f"{prompt}<Thinking>my own way to {number}</Thinking><Answer>")
            assert own.segment_counts[index].tolist() == np.bincount(mine[1], minlength=8).tolist()
    assert 0 < sum(is_own) < len(own)
    assert after.job.store_dir == own.path
    assert before.job.stage_dir == after.job.stage_dir
    by_row = {(row.data_set, row.id): row for row in SAMPLED_ROWS.read(folder / "rows.jsonl")}
    assert {name.partition(" ")[2] for name, _ in by_row} == {"one", "two"}
    for (_, name), row in by_row.items():
        assert row.outcomes == KINDS[int(name.rpartition(":")[2]) % len(KINDS)]
        assert row.trained == (row.outcomes.index("accepted") if "accepted" in row.outcomes else None)


def test_the_yield_counts_rows_and_samples_by_what_became_of_them(sampled):
    before, after, folder = sampled()
    found = YIELD.read(folder / "yield.json")
    held_out = len(set(map(tuple, before.data.store.hashes[before.data.held_out].tolist())))
    assert found == after.own_responses
    assert found.rows == NUM_ROWS - held_out
    assert found.samples == 2 * found.rows == sum(found.outcomes.values())
    assert found.tokens == 9 * found.samples
    rows = SAMPLED_ROWS.read(folder / "rows.jsonl")
    assert found.accepted_rows == sum(row.trained is not None for row in rows)
    assert set(found.outcomes) == {outcome for kind in KINDS for outcome in kind}
    assert 0 < found.share < 1


@pytest.mark.parametrize("otherwise", ["reference", "skip"])
def test_the_stage_has_the_planned_number_of_steps_whatever_is_left_out(sampled, otherwise):
    before, after, _ = sampled({"otherwise": otherwise})
    planners = [
        stage.job.stage.planner(
            stage.data.store.segment_counts,
            seed=0,
            micro_batch_tokens=1000,
            data_ranks=2,
            cost=CostModel(1, 0),
            held_out=stage.data.held_out,
            example_weights=stage.data.store.loss_weights,
        )
        for stage in (before, after)
    ]
    assert planners[0].num_steps == planners[1].num_steps == before.num_steps
    own, held_out = after.data.store, set(after.data.held_out.tolist())
    references = before.data.store
    assert [own.ids[i] for i in after.data.held_out] == [references.ids[i] for i in before.data.held_out]
    if otherwise == "skip":
        kept = [number % len(KINDS) for index, number in enumerate(numbers(own)) if index not in held_out]
        assert set(kept) == {0, 1, 3}
        assert {refusal.reason for refusal in own.refusals} == {"no_accepted_response"}
        assert "broken_structure: 1, truncated: 1" in {refusal.detail for refusal in own.refusals}
        assert len(own.refusals) + after.own_responses.accepted_rows == after.own_responses.rows
    else:
        assert own.refusals == []
        assert planners[0].members(1).tolist() == planners[1].members(1).tolist(), "the same rows in the same steps"


def test_what_was_sampled_is_judged_again_and_not_generated_again(sampled):
    _, first, folder = sampled()
    _, again, same = sampled()
    assert (Pool.asked, same) == (1, folder)
    assert again.data.store.digest == first.data.store.digest
    _, exact, other = sampled(evaluation={"answer_check": "numeric"})
    assert (Pool.asked, other.parent) == (1, folder.parent)
    assert other != folder
    assert set(exact.own_responses.outcomes) == {"unjudged", "broken_structure", "truncated"}
    assert exact.own_responses.accepted_rows == 0
    _, _, elsewhere = sampled(evaluation={"max_new_tokens": 99})
    assert (Pool.asked, elsewhere.parent == folder.parent) == (2, False)
    sampled(seed=1)
    assert Pool.asked == 3
    sampled(weights="b")
    assert Pool.asked == 4, "the stage before was trained again, and has another model now"
    assert (folder.parents[1] / "earlier" / f"{folder.parent.name}-1" / folder.name).is_dir()


def test_a_stage_without_anything_to_train_is_refused_in_one_line(sampled):
    for _ in range(2):
        with pytest.raises(DataError) as error:
            sampled({"otherwise": "skip"}, evaluation={"answer_check": "numeric"})
        message = str(error.value)
        assert "own stage 2/2 (key): none of" in message
        assert "unjudged: " in message
        assert "set otherwise: reference" in message
        assert "\n" not in message
    assert Pool.asked == 1
