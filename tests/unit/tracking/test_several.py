import pytest

from sftkey_dist.tracking import MeasuredScores, NullTracker
from sftkey_dist.tracking.several import SeveralTrackers
from sftkey_dist.tracking.sink import Known, SinkTracker


class Recorder(NullTracker):
    """Keeps what it is told, under ids of its own."""

    def __init__(self, name, steps_there=0, missing=0, finished=False):
        self.name, self.steps_there, self.missing, self.finished = name, steps_there, missing, finished
        self.heard = []

    def start_run(self, key, name, parent, tags):
        self.heard.append(("start", key, parent))
        return f"{self.name}/{key}"

    def mlflow_run_id(self, run_id):
        return run_id if self.name == "mlflow" else None

    def log_steps(self, run_id, records):
        self.heard.append(("steps", run_id, [record["step"] for record in records]))

    def log_scores(self, run_id, scores, model_of):
        self.heard.append(("scores", run_id, model_of))

    def log_missing(self, run_id, records):
        self.heard.append(("missing", run_id))
        return self.missing

    def steps_logged(self, run_id, metrics):
        return self.steps_there

    def has_finished(self, key):
        return self.finished


class Dead(NullTracker):
    """A store that does not answer."""

    def log_missing(self, run_id, records):
        return None


class Memory:
    """A sink that keeps what is written, and fails while it is told to."""

    title, remedy = "Memory", "remember"

    def __init__(self):
        self.rows, self.summaries, self.ended, self.fails = [], [], [], False

    def known(self, key):
        return Known({"loss": 2}, {"score": 0.5}) if key == "stage/old" else Known()

    def write(self, run, rows):
        if self.fails:
            raise OSError("no space left, https://me:hunter2@host")
        self.rows += [(run.key, step, values) for step, values in rows]

    def write_summary(self, run, values):
        self.summaries.append((run.key, values))

    def end(self, run, status):
        self.ended.append((run.key, status))


def test_every_tracker_hears_the_same_under_its_own_ids():
    trackers = [Recorder("mlflow"), Recorder("other")]
    both = SeveralTrackers(trackers)
    parent = both.start_run("strategy/sft", "sft", None, {})
    stage = both.start_run("stage/abc", "stage full", parent, {})
    both.log_steps(stage, [{"step": 0, "loss": 1.0}])
    for tracker in trackers:
        assert tracker.heard == [
            ("start", "strategy/sft", None),
            ("start", "stage/abc", f"{tracker.name}/strategy/sft"),
            ("steps", f"{tracker.name}/stage/abc", [0]),
        ]
    assert (parent, both.mlflow_run_id(stage)) == ("mlflow/strategy/sft", "mlflow/stage/abc")


def test_each_tracker_gets_the_steps_that_it_lacks_and_no_other():
    ahead, behind = Recorder("ahead", steps_there=3), Recorder("behind", steps_there=1)
    both = SeveralTrackers([ahead, behind])
    run = both.start_run("stage/abc", "stage full", None, {})
    assert both.steps_logged(run, ("guard/score",)) == 1
    both.log_steps(run, [{"step": step, "guard": {"score": 0.5}} for step in range(1, 5)])
    assert ahead.heard[-1] == ("steps", "ahead/stage/abc", [3, 4])
    assert behind.heard[-1] == ("steps", "behind/stage/abc", [1, 2, 3, 4])


def test_what_one_tracker_lacks_does_not_keep_others_from_getting_it():
    other = Recorder("other", missing=3)
    both = SeveralTrackers([Dead(), other])
    parent = both.start_run("strategy/sft", "sft", None, {})
    stage = both.start_run("stage/abc", "stage full", parent, {})
    assert parent is not None
    assert both.mlflow_run_id(parent) is None, "the report must not name a run that MLflow does not have"
    assert both.log_missing(stage, [{"step": 0, "loss": 1.0}]) is None, "sync says that MLflow does not answer"
    assert other.heard[-1] == ("missing", "other/stage/abc")
    assert SeveralTrackers([Recorder("a", missing=2), other]).has_finished("stage/abc") is False


def test_missing_points_are_counted_in_all_trackers_and_finished_is_what_all_have_finished():
    both = SeveralTrackers([Recorder("a", missing=2, finished=True), Recorder("b", missing=3, finished=True)])
    run = both.start_run("stage/abc", "stage full", None, {})
    assert both.log_missing(run, []) == 5
    assert both.has_finished("stage/abc")


def test_scores_reach_each_tracker_under_its_own_ids_and_a_sink_by_their_names(sink):
    first, second, third = Recorder("a"), Recorder("b"), SinkTracker(sink)
    several = SeveralTrackers([first, second, third])
    parent = several.start_run("strategy/sft", "sft", None, {})
    run = several.start_run("evaluation/sft", "evaluation", parent, {})
    several.log_scores(run, [MeasuredScores({"score": 0.5}, None), MeasuredScores({"memos/score": 0.5}, None)], parent)
    assert first.heard[-1] == ("scores", "a/evaluation/sft", "a/strategy/sft")
    assert second.heard[-1] == ("scores", "b/evaluation/sft", "b/strategy/sft")
    assert sink.summaries == [("evaluation/sft", {"score": 0.5, "memos/score": 0.5})]


@pytest.fixture
def sink():
    return Memory()


def test_a_sink_gets_each_number_once(sink):
    tracker = SinkTracker(sink)
    run = tracker.start_run("stage/old", "stage full", "strategy/sft", {"sftkey.strategy": "sft"})
    assert tracker.steps_logged(run, ["loss", "absent"]) == 2
    records = [{"step": step, "loss": 1.0, "guard": {"score": 0.5, "signal": "teacher_forced"}} for step in (1, 2, 2)]
    assert tracker.log_missing(run, records) == 3
    assert tracker.log_missing(run, records) == 0
    assert sink.rows == [(run, 1, {"guard/score": 0.5}), (run, 2, {"loss": 1.0, "guard/score": 0.5})]
    for score in (0.5, 0.75, 0.75):
        tracker.log_summary(run, {"score": score})
    assert sink.summaries == [(run, {"score": 0.75})]
    tracker.end_run(run)
    assert tracker.has_finished(run)
    assert not SinkTracker(Memory()).has_finished("stage/new")


def test_a_sink_that_fails_costs_one_warning_and_gets_nothing_more(sink, capsys):
    tracker = SinkTracker(sink)
    run = tracker.start_run("stage/new", "stage full", None, {})
    sink.fails = True
    tracker.log_steps(run, [{"step": 0, "loss": 1.0}])
    sink.fails = False
    tracker.log_steps(run, [{"step": 1, "loss": 1.0}])  # it would leave out step 0 for good
    tracker.log_summary(run, {"score": 0.5})
    tracker.end_run(run)
    assert tracker.start_run("stage/next", "stage key", None, {}) == "stage/next"
    assert tracker.log_missing("stage/next", [{"step": 0, "loss": 1.0}]) == 0
    assert (sink.rows, sink.summaries, sink.ended) == ([], [], [])
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("Memory failed (no space left") == 1
    assert "hunter2" not in said
