"""Which results of the capability check a run needs, and which it has."""

import importlib.util
import py_compile
from dataclasses import replace

import pytest

from sftkey_dist.evaluation.capabilities.fan_out import CapabilityJob, _in_lines
from sftkey_dist.pipeline.capabilities import plan_capabilities, record_capabilities
from sftkey_dist.pipeline.evaluate import evaluation_is_finished
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import RunPlan, plan_run
from sftkey_dist.run_dir.artifacts.capabilities import CAPABILITY, CapabilityResult, read_capabilities
from tests.capability_tasks import write_tasks

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval")


@pytest.fixture
def plan(run_config, tmp_path) -> RunPlan:
    """Two strategies that end in the same model, and one that does not."""
    weights = {"reasoning": 1.0, "answer": 1.0}
    same = [{"name": name, "stages": [{"name": "a", "weights": weights}]} for name in ("one", "two")]
    content = run_config.model_dump(mode="json") | {"strategies": [*same, "sftkey-tag"]}
    content["evaluation"]["capabilities"] = {"tasks": ["memo_choice"], "task_dir": write_tasks(tmp_path / "tasks")}
    config = type(run_config).model_validate(content)
    return plan_run(config, prepare(config))


def with_settings(plan: RunPlan, **changes) -> RunPlan:
    settings = plan.config.evaluation.capabilities.model_copy(update=changes)
    evaluation = plan.config.evaluation.model_copy(update={"capabilities": settings})
    return replace(plan, config=plan.config.model_copy(update={"evaluation": evaluation}))


def open_jobs(plan: RunPlan) -> list[CapabilityJob]:
    return plan_capabilities(plan).open


def do(jobs: list[CapabilityJob]) -> None:
    for job in jobs:
        result = CapabilityResult(job.task, job.digest, "0", {}, 1, (), job.weights_digest)
        CAPABILITY.write(job.file, result)


def test_each_model_is_measured_once_and_not_again(plan):
    jobs = open_jobs(plan)
    assert [job.model for job in jobs] == ["the base model", "one", "sftkey-tag"]
    assert [job.model_dir for job in jobs[:1]] == [plan.preparation.model_dir]
    do(jobs)
    assert open_jobs(plan) == []
    assert not evaluation_is_finished(plan), "nothing is generated yet"
    record_capabilities(plan, plan_capabilities(plan))
    found = read_capabilities(plan.run)
    assert [result.digest for result in found.base] == [jobs[0].digest]
    assert {name: [result.digest for result in of] for name, of in found.strategies.items()} == {
        "one": [jobs[1].digest],
        "two": [jobs[1].digest],
        "sftkey-tag": [jobs[2].digest],
    }
    off = plan.config.evaluation.model_copy(update={"capabilities": None})
    without = replace(plan, config=plan.config.model_copy(update={"evaluation": off}))
    record_capabilities(without, plan_capabilities(without))
    assert read_capabilities(plan.run).base == ()


def test_a_model_that_was_trained_again_to_other_weights_is_measured_again(plan):
    first = [replace(job, weights_digest="a") for job in open_jobs(plan)]
    do(first)
    assert all(job.is_done for job in first)
    assert not any(replace(job, weights_digest="b").is_done for job in first)


def test_what_a_result_depends_on_is_measured_again(plan):
    do(open_jobs(plan))
    folder = plan.config.evaluation.capabilities.task_dir
    assert open_jobs(with_settings(plan, batch_size=3)) == []
    more = open_jobs(with_settings(plan, tasks=("memo_choice", "memo_words")))
    assert {job.task for job in more} == {"memo_words"}
    assert len(open_jobs(with_settings(plan, limit=3))) == 3
    assert len(open_jobs(with_settings(plan, num_fewshot=0))) == 3
    documents = folder / "memos.jsonl"
    documents.write_text(documents.read_text().replace("1", "2"))
    assert len(open_jobs(plan)) == 3, "other documents"


def test_what_loading_the_code_of_a_task_leaves_behind_changes_nothing(plan):
    """Python, lm-evaluation-harness and editors write such files into the folder while the tasks are solved."""
    folder = plan.config.evaluation.capabilities.task_dir
    (folder / "utils.py").write_text("def answer(document):\n    return document['label']\n")
    planned = plan_capabilities(plan)
    py_compile.compile(str(folder / "utils.py"), doraise=True)
    for left in (".ipynb_checkpoints/memos.jsonl", ".utils.py.swp", "old.pyc"):
        (folder / left).parent.mkdir(exist_ok=True)
        (folder / left).write_text("")
    assert list((folder / "__pycache__").iterdir())
    do(planned.open)
    assert open_jobs(plan) == []
    (folder / "utils.py").write_text("def answer(document):\n    return 0\n")
    assert len(open_jobs(plan)) == 3
    record_capabilities(plan, planned)
    assert len(read_capabilities(plan.run).base) == 1, "a folder that changes meanwhile loses no result"


def test_a_result_that_is_missing_is_left_out(plan):
    do(open_jobs(plan)[1:])
    record_capabilities(plan, plan_capabilities(plan))
    assert read_capabilities(plan.run).base == ()


def test_a_task_that_fails_for_all_models_is_one_line(plan):
    base, one, last = open_jobs(plan)
    assert _in_lines({base: "it failed", one: "it failed", last: ""}) == [
        "capabilities: task memo_choice of the base model, one: it failed; the same command tries again"
    ]
