import json
import os
import shlex
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine

from sftkey_dist.config.tracking import TrackingConfig
from sftkey_dist.errors import ConfigError, InterruptedRunError
from sftkey_dist.interrupts import handlers_kept, raise_on_signals
from sftkey_dist.pipeline.tracking.runs import track_yield
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.training import GuardScores, Observation, SampleYield
from sftkey_dist.tracking import NullTracker, how_to_open, make_tracker, tracking_uri
from sftkey_dist.tracking.mlflow_client import experiment_called, find_run_dirs, remedy_of
from sftkey_dist.tracking.mlflow_store import MlflowTracker
from sftkey_dist.tracking.sqlite_uri import sqlite_file, sqlite_uri


@pytest.fixture
def make(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path)

    def tracker() -> MlflowTracker:
        return MlflowTracker(
            f"sqlite:///{tmp_path / 'mlflow.db'}", "study", tmp_path / "artifacts", tmp_path / "tracking.json"
        )

    return tracker


def test_a_rerun_continues_its_runs_and_knows_what_they_have(make, tmp_path):
    first = make()
    parent = first.start_run("strategy/sft", "sft", None, {"sftkey.strategy": "sft"})
    child = first.start_run("stage/abc", "stage full", parent, {})
    first.log_params(child, {"optimization": {"learning_rate": 1e-3}, "long": "x" * 9000})
    losses = (1, 1 / 2, 1 / 3)
    records = [{"step": i, "loss": loss, "segments": {"answer": {"nll": 2.0}}} for i, loss in enumerate(losses)]
    first.log_steps(child, records)

    second = make()
    assert second.start_run("strategy/sft", "sft", None, {}) == parent
    assert second.start_run("stage/abc", "stage full", parent, {}) == child
    assert second.steps_logged(child, ["loss", "absent"]) == 3
    second.log_params(child, {"optimization": {"learning_rate": 5.0}, "more": 1})
    second.end_run(child)

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(child)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.params["optimization.learning_rate"] == "0.001", "params of a run never change"
    assert run.data.params["more"] == "1"
    assert len(run.data.params["long"]) == 500
    assert [m.value for m in client.get_metric_history(child, "loss")] == pytest.approx(losses)
    assert len(client.get_metric_history(child, "segments/answer/nll")) == 3
    assert len(client.search_runs(["1"])) == 2


def test_the_text_of_a_record_is_no_outage(make, tmp_path, capsys):
    tracker = make()
    run = tracker.start_run("stage/abc", "stage full", None, {})
    guard = GuardScores(n=4, accuracy=0.5, format=1.0, score=0.75, signal="teacher_forced")
    tracker.log_steps(run, [to_plain(Observation(3, guard=guard))])
    assert capsys.readouterr().out == ""
    metrics = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(run).data.metrics
    assert metrics == {"guard/n": 4, "guard/accuracy": 0.5, "guard/format": 1.0, "guard/score": 0.75}


def test_more_metrics_than_one_call_takes(make, tmp_path):
    tracker = make()
    run = tracker.start_run("stage/abc", "stage full", None, {})
    tracker.log_steps(run, [{"step": step, **{f"m{i}": i for i in range(7)}} for step in range(300)])
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(client.get_metric_history(run, "m6")) == 300


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "postgresql://127.0.0.1:1/db", "mysql+pymysql://127.0.0.1:1/db"])
def test_a_server_that_does_not_answer_is_a_quick_clear_error(tmp_path, uri):
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"tracking\.uri.*tracking\.enabled=false"):
        MlflowTracker(uri, "study", tmp_path, tmp_path / "tracking.json")
    assert time.monotonic() - started < 20


def test_a_store_that_dies_costs_one_warning_not_the_run(make, tmp_path, capsys):
    tracker = make()
    run = tracker.start_run("stage/abc", "stage full", None, {})
    (tmp_path / "mlflow.db").write_bytes(b"this is no database any more")
    for step in range(3):
        tracker.log_steps(run, [{"step": step, "loss": 1.0}])
    tracker.end_run(run)
    assert tracker.start_run("stage/def", "stage key", run, {}) is None
    tracker.log_params(None, {"a": 1})
    assert capsys.readouterr().out.count("MLflow stopped answering") == 1


def test_the_yield_of_sampled_responses_is_logged_with_their_stage(make, tmp_path):
    tracker = make()
    runs = [tracker.start_run(f"stage/{number}", "stage key", None, {}) for number in range(2)]
    track_yield(SampleYield(40, 30, "skip", 80, {"accepted": 50, "truncated": 30}, 800), runs[0], tracker)
    track_yield(None, runs[1], tracker)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    own = {f"own_responses/{name}": value for name, value in zip(("rows", "accepted_rows"), (40, 30), strict=True)}
    assert client.get_run(runs[0]).data.metrics == own | {"own_responses/accepted_share": 0.75}
    assert client.get_run(runs[1]).data.metrics == {}


def test_of_two_summaries_the_later_shows(make, tmp_path):
    tracker = make()
    run = tracker.start_run("strategy/sft", "sft", None, {})
    for score in (0.62, 0.55):
        tracker.log_summary(run, {"score": score})
        time.sleep(0.01)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(run).data.metrics["score"] == 0.55


def test_a_deleted_experiment_is_an_error_that_says_so(make, tmp_path):
    make()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.delete_experiment(client.get_experiment_by_name("study").experiment_id)
    with pytest.raises(ConfigError, match="was deleted in MLflow"):
        make()


def test_a_signal_while_a_store_is_created_is_no_fault_of_the_store_and_leaves_none(tmp_path):
    """Alembic replaces what is raised within a change of a table by an error of its own."""

    def make() -> MlflowTracker:
        return MlflowTracker(sqlite_uri(tmp_path / "new" / "x.db"), "study", tmp_path, tmp_path / "tracking.json")

    def interrupt(cursor, statement, parameters, context) -> None:
        if statement.startswith("INSERT INTO _alembic_tmp_tags"):
            os.kill(os.getpid(), signal.SIGTERM)

    event.listen(Engine, "do_execute", interrupt)
    try:
        with handlers_kept():
            raise_on_signals()
            with pytest.raises(InterruptedRunError):
                make()
    finally:
        event.remove(Engine, "do_execute", interrupt)
    assert list(tmp_path.iterdir()) == []
    assert make().start_run("key", "name", None, {})
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.db"]


def test_a_damaged_or_old_store_is_an_error_with_its_remedy(tmp_path, empty_database):
    store = tmp_path / "mlflow.db"
    store.write_text("no database")
    with pytest.raises(ConfigError, match=r"file is not a database.*; the file is damaged or unfinished: move it away"):
        find_run_dirs(sqlite_uri(store), "study")
    shutil.copy(empty_database, store)
    with sqlite3.connect(store) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(ConfigError, match=r"out-of-date database schema.*; upgrade it with `mlflow db upgrade`"):
        find_run_dirs(sqlite_uri(store), "study")


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        ("(sqlite3.OperationalError) database is locked", "try again"),
        ("(sqlite3.OperationalError) database or disk is full", "make room"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", "writable"),
        ("(sqlite3.OperationalError) table _alembic_tmp_runs already exists", "move it away"),
        ("(sqlite3.OperationalError) unable to open database file", "correct the URI"),
    ],
)
def test_a_store_that_others_use_is_not_to_be_moved_away(problem, remedy):
    found = remedy_of(MlflowException(problem), "sqlite:///runs/mlflow.db")
    assert remedy in found
    assert ("move it away" in found) == (remedy == "move it away")


def test_which_stores_are_sqlite_files():
    assert sqlite_file("sqlite:///runs/a%25b.db?timeout=5") == Path("runs/a%b.db")
    assert sqlite_file(sqlite_uri(Path("/x/50% ?.db"))) == Path("/x/50% ?.db")
    for uri in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x.db?uri=true", "postgresql://db/x"):
        assert sqlite_file(uri) is None


def test_where_the_store_is(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_dir = tmp_path / "runs" / "x"
    assert tracking_uri(TrackingConfig(), run_dir) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(TrackingConfig(), run_dir) == "http://mlflow:5000"
    assert tracking_uri(TrackingConfig(uri="http://other:1"), run_dir) == "http://other:1"


@pytest.mark.parametrize("folder", ["My Runs", "runs #1", "a?b", "50%25", "Run #1 50%25 ünï?x=1", "it's $5", "a&b;c"])
def test_the_store_lies_beside_the_run_whatever_its_folder_is_called(tmp_path, monkeypatch, folder):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_dir = tmp_path / folder / "a b"
    run_dir.mkdir(parents=True)
    tracker = make_tracker(TrackingConfig(), run_dir, run_dir / "tracking.json")
    run = tracker.start_run("key", "name", None, {})
    (run_dir / "note.txt").write_text("x")
    tracker.log_artifact(run, run_dir / "note.txt")
    tracker.end_run(run)
    assert tracker.has_finished("key")
    assert {path.name for path in tmp_path.iterdir()} == {folder}
    assert (tmp_path / folder / "mlflow.db").is_file()
    assert [path.name for path in (tmp_path / folder / "mlartifacts").rglob("*.txt")] == ["note.txt"]
    with pytest.raises(
        ValueError, match=r"'mlruns' is neither an address nor a database; .*sqlite:///mlruns/mlflow\.db"
    ):
        TrackingConfig(uri="mlruns")
    uri = tracking_uri(TrackingConfig(), run_dir)
    assert TrackingConfig(uri=uri).uri == uri, "a study writes it into its runs' configurations"
    *_, option, given = shlex.split(how_to_open(uri).removeprefix("MLflow: "), comments=True)
    assert (option, given) == ("--backend-store-uri", uri)


def test_disabled_tracking_keeps_no_track(tmp_path):
    tracker = make_tracker(TrackingConfig(enabled=False), tmp_path, tmp_path / "tracking.json")
    assert isinstance(tracker, NullTracker)
    assert tracker.start_run("k", "n", None, {}) is None
    assert list(tmp_path.iterdir()) == []


def test_the_line_that_opens_mlflow_shows_no_credentials():
    assert how_to_open("sqlite:///runs/mlflow.db").endswith("--backend-store-uri sqlite:///runs/mlflow.db")
    for uri in (
        "https://me:hunter2@mlflow.example/x",
        "https://me:hun/ter2@mlflow.example/x?key=hunter2#hunter2",
        "postgresql://db/mlflow?password=hunter2",
        "sqlite:///runs/mlflow.db?key=hunter2",
    ):
        assert "ter2" not in how_to_open(uri)
    assert how_to_open("https://me:hun/ter2@mlflow.example/x?y=1") == "MLflow: open https://mlflow.example/x"


def test_a_run_with_a_call_that_failed_does_not_count_as_finished(make, tmp_path, monkeypatch):
    tracker = make()
    run = tracker.start_run("evaluation/abc", "evaluation", None, {})
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_table", lambda *_: 1 / 0)
        tracker.log_table(run, {"id": ["a"]}, "outputs.json")
    tracker.end_run(run)
    assert not make().has_finished("evaluation/abc"), "sync will do it again"
    again = make()
    assert again.start_run("evaluation/abc", "evaluation", None, {}) == run
    for _ in range(2):
        again.log_table(run, {"id": ["a"]}, "outputs.json")
    again.end_run(run)
    assert again.has_finished("evaluation/abc")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(json.loads(Path(client.download_artifacts(run, "outputs.json")).read_text())["data"]) == 1


def test_a_summary_that_is_logged_again_is_one_point_and_a_new_value_another(make, tmp_path):
    for accuracy in (0.5, 0.5, 0.25, 0.25):
        tracker = make()
        run = tracker.start_run("evaluation/abc", "evaluation", None, {})
        tracker.log_summary(run, {"accuracy": accuracy, "n": 300.0})
        tracker.end_run(run)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    values = {name: [point.value for point in client.get_metric_history(run, name)] for name in ("accuracy", "n")}
    assert values == {"accuracy": [0.5, 0.25], "n": [300.0]}


def test_what_a_run_logs_of_the_one_above_it_belongs_to_it(make, monkeypatch):
    """A later command repeats both, because it asks only whether the run below has finished."""
    tracker = make()
    strategy = tracker.start_run("strategy/sft", "sft", None, {})
    earlier, run = (tracker.start_run(f"evaluation/{name}", "evaluation", strategy, {}) for name in "ab")
    tracker.end_run(earlier)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", lambda *_, **__: 1 / 0)
        tracker.log_summary(strategy, {"accuracy": 0.5})
        tracker.end_run(run)
    tracker.end_run(strategy)
    later = make()
    assert [later.has_finished(key) for key in ("evaluation/a", "evaluation/b", "strategy/sft")] == [True, False, True]


def test_metrics_that_an_outage_holds_up_are_sent_with_the_next_ones_or_at_the_end(make, tmp_path, monkeypatch, capsys):
    tracker = make()
    runs = [tracker.start_run(f"stage/{name}", "stage full", None, {}) for name in "abc"]
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", lambda *_, **__: 1 / 0)
        for run in runs:
            tracker.log_steps(run, [{"step": 0, "loss": 3.0}])
        tracker.end_run(runs[2])
    tracker.log_steps(runs[0], [{"step": 1, "loss": 2.0}])
    for run in runs[:2]:
        tracker.end_run(run)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = [[(m.step, m.value) for m in client.get_metric_history(run, "loss")] for run in runs]
    assert found == [[(0, 3.0), (1, 2.0)], [(0, 3.0)], []]
    assert [client.get_run(run).info.status for run in runs] == ["FINISHED", "FINISHED", "FAILED"]
    assert capsys.readouterr().out.count("MLflow stopped answering") == 1


def test_steps_that_a_run_may_already_have_are_looked_up_before_they_are_sent(make, tmp_path, monkeypatch):
    first = make()
    run = first.start_run("stage/a", "stage full", None, {})
    records = [{"step": step, "loss": 1.0 / (1 + step)} for step in range(4)]
    first.log_steps(run, records[:3])
    again = make()
    assert again.start_run("stage/a", "stage full", None, {}) == run
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_metric_history", lambda *_: 1 / 0)
        assert again.steps_logged(run, ["loss"]) == 0
    again.log_steps(run, records)
    history = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_metric_history(run, "loss")
    assert [point.step for point in history] == [0, 1, 2, 3]


def test_of_two_commands_that_create_an_experiment_the_second_uses_the_firsts(make, monkeypatch):
    tracker = make()
    found, looked = MlflowClient.get_experiment_by_name, iter([True])
    monkeypatch.setattr(
        MlflowClient, "get_experiment_by_name", lambda *own: None if next(looked, False) else found(*own)
    )
    assert experiment_called("study", tracker._client, None) == tracker._experiment_id


@pytest.mark.parametrize(("of_user", "of_upload"), [(None, 300), ("7", 7)])
def test_files_have_more_time_than_other_calls_unless_the_user_says_how_much(
    make, tmp_path, monkeypatch, of_user, of_upload
):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    if of_user is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", of_user)
    seconds: list[int] = []
    monkeypatch.setattr(MlflowClient, "log_artifact", lambda *_: seconds.append(MLFLOW_HTTP_REQUEST_TIMEOUT.get()))
    tracker = make()
    run = tracker.start_run("strategy/sft", "sft", None, {})
    tracker.log_artifact(run, tmp_path / "mlflow.db")
    assert seconds == [of_upload]
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == int(of_user or 10)


def test_a_password_in_the_store_s_address_is_not_repeated(tmp_path):
    with pytest.raises(ConfigError) as error:
        MlflowTracker("http://alice:s3cret/s3cret@127.0.0.1:1", "study", tmp_path, tmp_path / "tracking.json")
    assert "s3cret" not in str(error.value)
