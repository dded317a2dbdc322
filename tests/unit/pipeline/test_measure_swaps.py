"""The measurement with swapped reasoning of all strategies of a run: what fails, and what needs no model."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from sftkey_dist.errors import IncompleteEvaluationError, ModelError
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.swapped.pairing import choose_pairs
from sftkey_dist.pipeline import swapped
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import RunPlan, plan_run
from sftkey_dist.run_dir.artifacts.evaluation import GENERATIONS, GenerationRecord
from sftkey_dist.run_dir.artifacts.swapped import SWAPPED, ContinuationRecord

LOST = IncompleteEvaluationError("an actor was lost; what was generated is kept")


class Pool:
    """In place of actors: every answer is the same; for the strategy ``failing`` an error is raised."""

    def __init__(self) -> None:
        self.opened, self.failing, self.error = 0, "", LOST
        self.complete = self

    @contextmanager
    def open(self, config):
        self.opened += 1
        yield self

    def results(self, call, chunks):
        return (call(self, chunk) for chunk in chunks)

    def remote(self, job, beginnings):
        if job.strategy == self.failing:
            raise self.error
        return [ContinuationRecord(*of.key, generation=Generation("review</Answer>", 2, False)) for of in beginnings]


@pytest.fixture
def pool(monkeypatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(swapped, "generation_pool", pool.open)
    return pool


@pytest.fixture
def plan(run_config) -> RunPlan:
    """Two strategies that have generated."""
    content = run_config.model_dump(mode="json") | {"strategies": ["sft-tag", "sftkey-tag"]}
    content["evaluation"]["swapped_reasoning"] = 4
    config = type(run_config).model_validate(content)
    plan = plan_run(config, prepare(config))
    for planned in plan.strategies:
        planned.evaluation.folder.mkdir(parents=True)
        records = [GenerationRecord(e.data_set, e.id, (Generation("review", 4, False),)) for e in plan.test]
        GENERATIONS.append(planned.evaluation.folder / "generations.jsonl", records)
    return plan


def names_without(plan: RunPlan) -> list[str]:
    return [planned.name for planned in swapped.without_swaps(plan)]


def test_a_strategy_that_fails_stops_no_other_and_is_tried_again(plan, pool, monkeypatch):
    chosen = []
    monkeypatch.setattr(swapped, "choose_pairs", lambda *inputs: chosen.append(1) or choose_pairs(*inputs))
    pool.failing = "sft-tag"
    line = "sft-tag: swapped reasoning: an actor was lost; what was generated is kept; the same command tries again"
    assert swapped.measure_swaps(plan) == [line]
    assert names_without(plan) == ["sft-tag"]
    assert chosen == [1], "all strategies have the same pairs"
    pool.error = ModelError("model: it cannot be loaded")
    assert swapped.measure_swaps(plan) == [
        "sft-tag: swapped reasoning: model: it cannot be loaded; the same command tries again"
    ]
    pool.failing = ""
    assert swapped.measure_swaps(plan) == []
    files = [swapped.swapped_result(plan, planned) for planned in plan.strategies]
    one, other = (SWAPPED.read(file) for file in files)
    assert len(one.records) == 4
    assert one.records == other.records
    opened = pool.opened
    assert swapped.measure_swaps(plan) == []
    files[0].unlink()
    assert names_without(plan) == ["sft-tag"]
    assert swapped.measure_swaps(plan) == []
    assert names_without(plan) == []
    assert pool.opened == opened, "no model is needed for answers that are there"


def test_a_result_of_another_number_of_questions_is_none_of_the_configuration(plan, pool):
    swapped.measure_swaps(plan)
    evaluation = plan.config.evaluation.model_copy(update={"swapped_reasoning": 5})
    more = replace(
        plan,
        config=plan.config.model_copy(update={"evaluation": evaluation}),
        strategies=tuple(
            replace(of, evaluation=replace(of.evaluation, job=replace(of.evaluation.job, settings=evaluation)))
            for of in plan.strategies
        ),
    )
    pool.failing = "sft-tag"
    assert len(swapped.measure_swaps(more)) == 1
    assert [swapped.swapped_result(more, planned) is None for planned in more.strategies] == [True, False]


def test_a_strategy_without_outputs_is_not_asked(plan, pool):
    (plan.strategies[0].evaluation.folder / "generations.jsonl").unlink()
    assert swapped.measure_swaps(plan) == []
    assert names_without(plan) == ["sft-tag"]
