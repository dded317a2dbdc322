"""What MLflow shows of an evaluation: read back from its store."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sftkey_dist.config import load_config
from sftkey_dist.pipeline.records import record_evaluation
from sftkey_dist.pipeline.tracking.evaluations import table_of, track_capabilities, track_evaluation, track_swapped
from sftkey_dist.pipeline.tracking.runs import strategy_run
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.capabilities import (
    CAPABILITY,
    CAPABILITY_FILES,
    CapabilityFiles,
    CapabilityMetric,
    CapabilityResult,
)
from sftkey_dist.run_dir.artifacts.evaluation import RESPONDING_MODEL, RespondingModel
from sftkey_dist.tracking import make_tracker
from tests.finished_run import NUM_QUESTIONS, write_run, write_swaps
from tests.markdown import ROOT
from tests.records import output_record

MEMOS = {"adapter": "decision_memos", "split": "test", "limit": 20, "name": "memos (1)"}


@pytest.fixture
def track(tmp_path, empty_database):
    """Tracks a run with seven right answers, which is called as the runs of studies are, and gives the client."""
    shutil.copy(empty_database, tmp_path)
    run = RunDir(write_run(tmp_path / "plain" / "seed-2", {"sft-tag": 7}, name=MEMOS["name"]))
    folder = run.path / "evaluation" / "sft-tag"
    (folder / "review.jsonl").touch()

    def tracked(*test_sets, guided=False):
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        overrides = [
            f"evaluation.guided={guided}",
            "seed=2",
            "tracking.experiment=study",
            f"tracking.uri={store}",
            f"run_dir={run.path}",
        ]
        overrides.append(f"data.test={json.dumps(test_sets)}")
        config = load_config([ROOT / "configs" / "quickstart.yaml"], overrides)
        tracker = make_tracker(config.tracking, run.path, run.tracking)
        with strategy_run(config, run, "sft-tag", "tagged", "abc", "123", tracker) as parent:
            track_evaluation(config, run, "sft-tag", folder, parent, tracker)
            track_capabilities(config, run, "sft-tag", parent, tracker)
            track_swapped(config, run, "sft-tag", parent, tracker)
        return MlflowClient(store), parent, folder

    return tracked


def test_the_model_has_its_scores_on_the_test_set_and_the_strategy_the_few_that_are_compared(track):
    for _ in range(2):  # which changes nothing
        client, parent, _ = track(MEMOS)
    strategy = client.get_run(parent)
    assert strategy.info.run_name == "sft-tag plain/seed-2"
    (model,) = client.search_logged_models([strategy.info.experiment_id])
    assert (model.name, model.source_run_id) == ("sft-tag-plain-seed-2", parent)
    assert (model.params["seed"], model.params["stages"]) == ("2", "full")
    assert model.tags["mlflow.source.name"] == "sftkey"
    measured = {metric.key: metric for metric in model.metrics}
    assert measured["accuracy"].value == 7 / NUM_QUESTIONS
    assert {metric.dataset_name for metric in model.metrics} == {"memos (1)"}
    assert not {name for name in measured if "/" in name}, "the mean over one set, or one segment, says nothing new"
    few = {"accuracy", "format", "score", "strict_score", "unjudged", "train_seconds", "loss_tokens"}
    assert strategy.data.metrics.keys() == few
    (evaluation,) = client.search_runs([strategy.info.experiment_id], "tags.`sftkey.evaluation` = 'sft-tag'")
    evaluation = client.get_run(evaluation.info.run_id)
    assert evaluation.info.run_name == "sft-tag plain/seed-2: evaluation"
    assert [each.model_id for each in evaluation.inputs.model_inputs] == [model.model_id]
    assert [each.dataset.digest for each in evaluation.inputs.dataset_inputs] == [measured["score"].dataset_digest]


def test_scores_that_are_renewed_replace_the_table_and_keep_the_model(track):
    _, _, folder = track(MEMOS)
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    (folder / "scores.json").write_text(json.dumps(scores | {"scoring_digest": "judged again", "accuracy": 1.0}))
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").replace('"incorrect"', '"correct"')
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    client, parent, _ = track(MEMOS)
    table = json.loads(Path(client.download_artifacts(parent, "outputs.json")).read_text(encoding="utf-8"))
    assert table["columns"][:4] == ["question", "reference", "answer", "verdict"]
    assert [row[3] for row in table["data"]] == ["correct"] * NUM_QUESTIONS
    assert len(client.search_logged_models([client.get_run(parent).info.experiment_id])) == 1


def test_scores_of_a_model_that_took_the_place_of_another_are_logged_too(track):
    _, _, folder = track(MEMOS)
    RESPONDING_MODEL.write(folder / "model.json", RespondingModel("ab12", is_renewed=True))
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").replace('"incorrect"', '"correct"')
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    for _ in range(2):
        client, parent, _ = track(MEMOS)
    table = json.loads(Path(client.download_artifacts(parent, "outputs.json")).read_text(encoding="utf-8"))
    assert [row[3] for row in table["data"]] == ["correct"] * NUM_QUESTIONS
    runs = client.search_runs([client.get_run(parent).info.experiment_id])
    assert sum("evaluation" in run.data.tags["mlflow.runName"] for run in runs) == 2


def test_several_test_sets_have_their_scores_under_their_names(track):
    client, parent, folder = track(MEMOS, MEMOS | {"name": "memos/hard"})
    (model,) = client.search_logged_models([client.get_run(parent).info.experiment_id])
    found = {(metric.key, metric.dataset_name) for metric in model.metrics}
    assert found >= {("accuracy", None), ("memos _1_/accuracy", "memos (1)"), ("macro/score", None)}
    assert json.loads((folder / "scores.json").read_text())["data_sets"].keys() == {"memos (1)"}


def test_metrics_of_the_harness_get_names_that_mlflow_allows(track):
    _, _, folder = track(MEMOS)
    run = folder.parents[1]
    metrics = tuple(CapabilityMetric(name, 0.5, 0.1, True, {}) for name in ("acc", "exact_match/maj@64"))
    CAPABILITY.write(run / "gsm8k.json", CapabilityResult("gsm8k", "digest", "0", {}, 1, metrics))
    files = CapabilityFiles(strategies={"sft-tag": {"gsm8k": "gsm8k.json"}})
    CAPABILITY_FILES.write(RunDir(run).capabilities, files)
    client, parent, _ = track(MEMOS)
    found = client.get_run(parent).data.metrics
    assert {"capability/gsm8k/acc", "capability/gsm8k/exact_match/maj_64"} <= found.keys()


def test_what_answers_follow_is_logged_once_without_shares_of_nothing(track):
    _, _, folder = track(MEMOS)
    record_evaluation(RunDir(folder.parents[1]), "sft-tag", folder, write_swaps(folder, "ffkn"))
    for _ in range(2):
        client, parent, _ = track(MEMOS)
    measured = {name: value for name, value in client.get_run(parent).data.metrics.items() if "swapped" in name}
    shares = {"right": 1.0, "follows": 0.5, "keeps": 0.25, "neither": 0.25}
    assert measured == {f"swapped_reasoning/{name}": value for name, value in shares.items()}
    assert [point.value for point in client.get_metric_history(parent, "swapped_reasoning/follows")] == [0.5]


def test_what_answers_follow_has_the_same_names_if_the_evaluation_is_guided(track):
    _, _, folder = track(MEMOS)
    file = write_swaps(folder, "ffkn")
    record_evaluation(RunDir(folder.parents[1]), "sft-tag", folder, file)
    client, parent, _ = track(MEMOS, guided=True)
    assert client.get_run(parent).data.metrics["swapped_reasoning/follows"] == 0.5
    file.unlink()
    track(MEMOS)  # which was removed counts as not measured


def test_the_table_shows_the_key_segments_beside_their_references():
    one = output_record(
        "incorrect",
        reference={"reasoning": "long", "answer": "review"},
        answer={"answer": "reject"},
        fields={"answer": "incorrect"},
        violation="missing_tag",
    )
    table = table_of([one])
    assert (table["reference"], table["answer"], table["format"]) == (["review"], ["reject"], ["missing_tag"])
    assert "sample" not in table
    assert table_of([one, output_record("correct", sample=1)])["sample"] == [0, 1]
