"""The live view of a run, from folders as commands leave them and while one is at work."""

import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from sftkey_dist.cli.watching import watch
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError, DataError, InterruptedRunError
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.evaluation import GENERATIONS, GenerationRecord
from sftkey_dist.run_dir.artifacts.kinds import JsonFile
from sftkey_dist.run_dir.artifacts.swapped import (
    CONTINUATIONS,
    SWAPPED,
    ContinuationRecord,
    Reasoning,
    SwappedReasoning,
)
from sftkey_dist.run_dir.artifacts.training import METRICS, OBSERVATIONS, TIMINGS, GuardScores, Observation
from sftkey_dist.run_dir.artifacts.underway import BEAT, BEGINNING, Beat, Beginning
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.run_dir.lock import locked
from sftkey_dist.watch.run import RunWatch
from sftkey_dist.watch.stage import read_if_there
from sftkey_dist.watch.view import in_one_line, render
from tests.finished_run import write_run
from tests.records import nll, step_metrics, step_timing


def train_up_to(stage: StageDir, steps: int) -> StageDir:
    """The files of a stage of eight steps of which so many are done, on two ranks."""
    BEGINNING.write(stage.beginning, Beginning("sftkey-tag stage 2/2 (key)", 8, 1.0))
    measured = [{"answer": nll(2.0 - s / 8), "answer.open": nll(0.1)} for s in range(steps)]
    METRICS.write(stage.metrics, [step_metrics(s, segments=of, learning_rate=3e-5) for s, of in enumerate(measured)])
    TIMINGS.write(stage.timings, [step_timing(s, seconds=2.0, tokens_per_second=1234.0) for s in range(steps)])
    OBSERVATIONS.write(
        stage.validation, [Observation(steps, None, GuardScores(n=9, accuracy=0.5, format=1.0, score=0.65))]
    )
    for rank in range(2):
        BEAT.write(stage.heartbeat(rank), Beat(steps, "forward", 1, 0.5 + rank / 4))
    return stage


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A run whose ``sft-tag`` is finished and whose ``sftkey-tag`` has begun its second stage."""
    run = RunDir(write_run(tmp_path / "run", {"sft-tag": 15}))
    settings = json.loads(run.config.read_text()) | {"strategies": ["sft-tag", {"name": "sftkey-tag"}]}
    run.config.write_text(json.dumps(settings))
    run.data_report.write_text('{"test": {"summary": "", "kept": 20}}')
    (run.path / "stages/key-2/stage.json").unlink()
    train_up_to(StageDir(run.path / "stages/key-2"), 3)
    return run


def frame(run: RunDir, width: int = 120, watch: RunWatch | None = None, **options) -> str:
    plain = Console(width=width, record=True, file=open(os.devnull, "w"), **options)  # noqa: SIM115
    plain.print(render((watch or RunWatch(run.path)).look(), plain))
    return plain.export_text()


def content(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_stage_that_trains_is_shown_with_all_that_is_known_of_it(run):
    stage = StageDir(run.path / "stages/key-2")
    append_event(stage.events, "restarted", "a node was lost")
    with locked(run.lock):
        before = content(run.path)
        shown = frame(run)
        assert content(run.path) == before, "watching writes nothing"
    assert f"training by process {os.getpid()} on " in shown
    assert "sftkey-tag stage 2/2 (key)\n" in shown
    assert "step 3 of 8  10 s left" in shown
    assert "learning rate 3.00e-05   2.00 s a step   1,234 tokens/s   2 ranks" in shown
    assert "rank 0: 0.50 GiB   rank 1: 0.75 GiB" in shown
    assert "last event: a node was lost" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "2.000  1.750  █" in rows["answer"]
    assert "0.500  0.500  ▅" in rows["answer"]
    assert "0.650  0.650" in next(line for line in shown.splitlines() if "guard: score" in line)
    assert "answer.open" not in shown
    assert "no sign of life" not in shown
    assert "done     full: 4 steps in 10 s" in shown
    assert "done     sft-tag evaluation: accuracy 0.750, format 1.000" in shown


def test_an_event_of_an_earlier_command_is_not_the_last_one(run):
    stage, watcher = StageDir(run.path / "stages/key-2"), RunWatch(run.path)
    append_event(stage.events, "stopping", "saving a checkpoint after this step, then ending")
    with locked(run.lock):
        assert "last event: saving a checkpoint" in frame(run, watch=watcher)
        BEGINNING.write(stage.beginning, Beginning("sftkey-tag stage 2/2 (key)", 8, 1.0, earlier_events=1))
        assert "last event" not in frame(run, watch=watcher)
        assert "last event" not in frame(run)
        append_event(stage.events, "restarted", "a node was lost")
        assert "last event: a node was lost" in frame(run, watch=watcher)
        BEGINNING.write(stage.beginning, Beginning("sftkey-tag stage 2/2 (key)", 8, 1.0))
        assert "last event: a node was lost" in frame(run), "an earlier version does not say it"


def test_ranks_whose_heartbeats_are_old_are_named(run):
    stage, long_ago = StageDir(run.path / "stages/key-2"), time.time() - 300
    with locked(run.lock):
        os.utime(stage.heartbeat(1), (long_ago, long_ago))
        assert "no sign of life from rank 1 at step 3 (forward) for 5 min 0 s" in frame(run, 200)
        os.utime(stage.heartbeat(0), (long_ago, long_ago))
        os.utime(stage.timings, (long_ago, long_ago))
        shown = frame(run, 200)
    assert "no rank has shown a sign of life for 5 min 0 s" in shown
    assert "last step 5 min 0 s ago" in shown


def test_many_ranks_are_shown_by_the_least_and_the_most_memory(run):
    stage = StageDir(run.path / "stages/key-2")
    for rank in range(16):
        BEAT.write(stage.heartbeat(rank), Beat(3, "guard", 1, 10.0 + rank))
    with locked(run.lock):
        shown = frame(run)
    assert "peak memory   rank 0: 10.00 GiB   rank 15: 25.00 GiB" in shown
    assert "now: guard" in shown


def test_a_restart_goes_back_to_the_steps_of_its_checkpoint(run):
    stage, watcher = StageDir(run.path / "stages/key-2"), RunWatch(run.path)
    with locked(run.lock):
        train_up_to(stage, 6)
        assert "step 6 of 8" in frame(run, watch=watcher)
        train_up_to(stage, 2)
        assert "step 2 of 8  12 s left" in frame(run, watch=watcher)
        train_up_to(stage, 3)
        assert "step 3 of 8" in frame(run, watch=watcher)


def test_a_stage_that_has_done_no_step_and_one_of_an_earlier_version_are_shown(run):
    stage = StageDir(run.path / "stages/key-2")
    for file in (stage.metrics, stage.timings, stage.validation):
        file.unlink()
    BEAT.write(stage.heartbeat(0), Beat(0, "start", 1))
    stage.heartbeat(1).unlink()
    with locked(run.lock):
        assert "step 0 of 8  now: starting" in frame(run)
        train_up_to(stage, 3).beginning.unlink()
        assert "key\nstep 3\n" in frame(run).replace(" \n", "\n")


def test_a_run_that_nobody_works_on_is_not_called_running(run):
    shown = frame(run)
    assert "not finished, and no command is working on it" in " ".join(shown.split())
    assert "stopped  sftkey-tag stage 2/2 (key): step 3 of 8" in shown


def test_an_evaluation_in_progress_is_counted(run):
    folder = run.path / "evaluation/sftkey-tag-0123"
    folder.mkdir()
    GENERATIONS.append(folder / "generations.jsonl", [GenerationRecord("memos/test", f"q{n}", ()) for n in range(7)])
    assert "sftkey-tag" not in frame(run).partition("done     sft-tag evaluation")[2], (
        "an old evaluation is no progress"
    )
    with locked(run.lock):
        assert "open     sftkey-tag evaluation: 7 of 20 prompts have responses\n" in frame(run).replace(" \n", "\n")
        settings = json.loads(run.config.read_text())
        run.config.write_text(json.dumps(settings | {"evaluation": {"limit": 7}}))
        assert "open     sftkey-tag evaluation: 7 of 7 prompts have responses, which are not all judged" in frame(run)


def test_answers_after_swapped_reasoning_are_counted_while_they_are_generated(tmp_path):
    run = RunDir(write_run(tmp_path / "run", {"sft-tag": 12}))
    (folder,) = (run.path / "evaluation").iterdir()
    answers = [ContinuationRecord("memos/test", f"q{n}", "q9", Reasoning.OWN, "0", None, "too long") for n in range(5)]
    with locked(run.lock):
        CONTINUATIONS.append(folder / "swapped_reasoning.jsonl", answers)
        shown = frame(run)
        assert "evaluating by process" in shown
        assert "done     sft-tag evaluation" in shown
        assert "open     sft-tag swapped reasoning: 5 answers" in shown
        assert in_one_line(RunWatch(run.path).look()) == "sft-tag swapped reasoning: 5 answers"
        SWAPPED.write(folder / "swapped_reasoning.json", SwappedReasoning("0", ()))
        assert "open " not in frame(run)


@pytest.mark.parametrize("width", [20, 80, 120])
def test_a_narrow_terminal_that_shows_ascii_only_is_enough(run, width, monkeypatch):
    monkeypatch.setattr(Console, "encoding", "ascii")
    with locked(run.lock):
        shown = frame(run, width)
    assert shown.isascii() or width == 20
    assert all(len(line) <= width for line in shown.splitlines())


def test_a_finished_run_says_so_and_ends_the_view(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run", {"sft-tag": 12, "sftkey-tag": 15})
    monkeypatch.setattr(type(console), "is_terminal", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("nothing is waited for"))
    watch(run)
    shown = capsys.readouterr().out
    assert "run: finished" in "".join(shown.splitlines())
    assert "sftkey-tag evaluation: accuracy 0.750" in shown


def test_the_view_ends_with_the_run_and_with_a_signal(run, capsys, monkeypatch):
    monkeypatch.setattr(type(console), "is_terminal", True)

    def finish(seconds):
        write_run(run.path, {"sft-tag": 12, "sftkey-tag": 15})

    def interrupt(seconds):
        raise InterruptedRunError(2)

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(SystemExit) as ended:
        watch(run.path)
    assert ended.value.code == 130
    assert "step 3 of 8" in capsys.readouterr().out.rpartition("\x1b[?1049l")[2], "the last frame stays"
    monkeypatch.setattr(time, "sleep", finish)
    watch(run.path)
    assert "finished" in capsys.readouterr().out.rpartition("\x1b[?1049l")[2]


def test_without_a_terminal_one_frame_is_printed(run, capsys, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("nothing is waited for"))
    watch(run.path)
    assert capsys.readouterr().out.count("no command is working on it") == 1


def test_a_folder_that_is_no_run_is_refused_with_the_run_that_may_be_meant(run, tmp_path):
    with pytest.raises(ConfigError, match=r"runn: no run there; did you mean .*/run\?$"):
        watch(tmp_path / "runn")
    with pytest.raises(ConfigError, match=r"there are runs in it; choose one: .*/run$"):
        watch(tmp_path)
    with pytest.raises(ConfigError, match="no run there; give the run_dir of a run that has begun"):
        watch(tmp_path / "other" / "place")


def test_a_file_that_the_run_removes_while_it_is_read_is_none(tmp_path, monkeypatch):
    file = tmp_path / "begun.json"

    def removed(path):
        path.unlink()
        raise DataError("it is missing")

    monkeypatch.setattr(JsonFile, "read", lambda self, path: removed(path))
    file.write_text("{}")
    assert read_if_there(BEGINNING, file) is None


def test_a_damaged_journal_is_named(run):
    file = run.path / "stages/key-2/metrics.jsonl"
    file.write_text("nonsense\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        watch(run.path, once=True)
