"""Event files for TensorBoard, read back with its own reader where it is installed."""

from pathlib import Path

import pytest

from sftkey_dist.config.tracking import TensorBoardConfig, TrackingConfig
from sftkey_dist.tracking import make_tracker, ways_to_open

TAGS = {"sftkey.strategy": "sft-tag"}


def tracker_of(folder, **more):
    run_dir = folder / "runs" / "mine"
    return make_tracker(TrackingConfig(enabled=False, also=("tensorboard",), **more), run_dir, run_dir / "ids.json")


def steps(numbers):
    return [{"step": step, "loss": 1 / (step + 1), "segments": {"final answer": {"nll": 2.0}}} for step in numbers]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def log_all(folder):
    tracker = tracker_of(folder)
    parent = tracker.start_run("strategy/sft-tag/abc", "sft-tag", None, TAGS)
    stage = tracker.start_run("stage/abc", "stage full", parent, TAGS)
    tracker.log_steps(stage, steps(range(3)))
    tracker.log_steps(stage, [{"step": 2, "validation": {"loss": 1.5}}])
    tracker.end_run(stage)
    evaluation = tracker.start_run("evaluation/x/def", "evaluation", parent, TAGS)
    for run in (parent, evaluation):
        tracker.log_summary(run, {"accuracy": 0.35})
        tracker.end_run(run)
    return folder / "runs" / "tensorboard" / "mine" / "sft-tag"


def test_tensorboard_reads_the_steps_the_held_out_losses_and_the_scores(tmp_path):
    strategy = log_all(tmp_path)
    (stage,), (whole,), (evaluation,) = (strategy.glob(f"{name}-*") for name in ("stage-full", "sft-tag", "evaluation"))
    assert points(stage) == {
        "loss": [(step, pytest.approx(1 / (step + 1))) for step in range(3)],
        "segments/final answer/nll": [(step, 2.0) for step in range(3)],
        "validation/loss": [(2, 1.5)],
    }
    assert points(whole) == points(evaluation) == {"accuracy": [(0, pytest.approx(0.35))]}


def test_a_repeated_command_adds_what_is_missing_and_nothing_twice(tmp_path):
    strategy = log_all(tmp_path)
    before = sorted(strategy.rglob("events*"))
    log_all(tmp_path)
    assert sorted(strategy.rglob("events*")) == before
    again = tracker_of(tmp_path)
    assert again.has_finished("evaluation/x/def")
    assert not again.has_finished("evaluation/x/other")
    stage = again.start_run("stage/abc", "stage full", None, {"sftkey.strategy": "another name of the strategy"})
    assert again.steps_logged(stage, ["loss"]) == 3
    assert again.log_missing(stage, steps(range(5))) == 4
    again.end_run(stage)
    (folder,) = (tmp_path / "runs" / "tensorboard" / "mine").glob("*/stage-full-*")
    assert len(list(folder.iterdir())) == 2, "the second file did not overwrite the first"
    assert [step for step, _ in points(folder)["loss"]] == list(range(5))


def test_a_step_that_was_being_written_when_the_process_was_killed_is_written_again(tmp_path):
    (file,) = log_all(tmp_path).glob("stage-full-*/*")
    file.write_bytes(file.read_bytes()[:-5])
    again = tracker_of(tmp_path)
    stage = again.start_run("stage/abc", "stage full", None, TAGS)
    assert again.log_missing(stage, [*steps(range(3)), {"step": 2, "validation": {"loss": 1.5}}]) == 1
    again.end_run(stage)
    assert points(file.parent)["validation/loss"] == [(2, 1.5)]


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, capsys):
    (tmp_path / "file").touch()
    tracker = tracker_of(tmp_path, tensorboard=TensorBoardConfig(folder=tmp_path / "file"))
    stage = tracker.start_run("stage/abc", "stage full", None, TAGS)
    for step in range(2):
        tracker.log_steps(stage, steps([step]))
    assert capsys.readouterr().out.count("TensorBoard failed") == 1


def test_mlflow_and_event_files_get_the_same(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_dir = tmp_path / "runs" / "mine"
    run_dir.mkdir(parents=True)
    config = TrackingConfig(also=("tensorboard",))
    tracker = make_tracker(config, run_dir, run_dir / "tracking.json")
    stage = tracker.start_run("stage/abc", "stage full", None, TAGS)
    tracker.log_steps(stage, steps(range(3)))
    tracker.end_run(stage)
    again = make_tracker(config, run_dir, run_dir / "tracking.json")
    assert again.start_run("stage/abc", "stage full", None, TAGS) == stage == again.mlflow_run_id(stage)
    assert again.log_missing(stage, steps(range(4))) == 2 * 2
    assert again.has_finished("stage/abc") is False, "MLflow's run goes on"
    lines = list(ways_to_open(config, run_dir))
    assert [line.partition(":")[0] for line in lines] == ["MLflow", "TensorBoard"]
    assert lines[1].endswith(f"--logdir {tmp_path}/runs/tensorboard")
