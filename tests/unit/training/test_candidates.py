"""Which of the guard's models are kept: those that a checkpoint refers to, by what the checkpoint says."""

import json

import pytest
import torch

from sftkey_dist.config.validation import GuardConfig
from sftkey_dist.errors import StorageError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.checkpoint import CheckpointKeeper, Snapshot
from sftkey_dist.training.checkpoint.storage import FolderStorage
from sftkey_dist.training.validation.guard import Guard


class Engine:
    """One rank with one weight."""

    rank, world_size = 0, 1

    def local_state(self):
        yield "w", 2, {"master": torch.ones(2)}

    def wait_for_first_rank(self):
        pass

    def gather_to_all(self, value):
        return [value]


@pytest.fixture
def keeper(tmp_path) -> CheckpointKeeper:
    return keeper_of(tmp_path)


def keeper_of(folder, attempt="a") -> CheckpointKeeper:
    storage = FolderStorage(folder / "checkpoints")
    return CheckpointKeeper(storage, "stage", rank=0, world_size=1, timeout_seconds=5, attempt=attempt)


def save(keeper: CheckpointKeeper, steps_done: int, candidate: int | None) -> None:
    keeper.save(Snapshot(Engine(), steps_done, 0, candidate))
    keeper.wait()


def test_a_checkpoint_says_which_model_it_needs(tmp_path, keeper):
    assert keeper.candidates() == frozenset()
    save(keeper, 4, 0)
    save(keeper, 8, 6)
    assert keeper.candidates() == {0, 6}
    assert keeper_of(tmp_path, "b").candidates() == {0, 6}, "read back by the next attempt"
    save(keeper, 12, 6)
    assert keeper.candidates() == {6}, "the checkpoint that needed the first is gone"


def test_the_model_of_a_checkpoint_that_is_being_written_counts(keeper, monkeypatch):
    monkeypatch.setattr(keeper, "_write", lambda snapshot: None)
    save(keeper, 4, 3)
    assert keeper.candidates() == {3}


def test_where_references_cannot_be_told_nothing_may_go(tmp_path, keeper, monkeypatch):
    save(keeper, 4, 0)
    (manifest,) = (tmp_path / "checkpoints").glob("*/manifest.json")
    content = json.loads(manifest.read_text())
    del content["candidate"]
    manifest.write_text(json.dumps(content))
    older = keeper_of(tmp_path, "b")
    assert older.read_manifest(manifest.parent.name).candidate is None, "one of an older version can be read"
    assert older.candidates() is None
    manifest.write_text("{")
    assert keeper_of(tmp_path, "c").candidates() == frozenset(), "nobody goes on from a damaged one"

    def away():
        raise StorageError("no answer")

    monkeypatch.setattr(keeper.storage, "folders", away)
    assert keeper.candidates() is None


def guard_of(tmp_path, references, keep="best") -> Guard:
    guard = Guard.__new__(Guard)
    guard._settings, guard._engine = GuardConfig(every_steps=1, keep=keep), Engine()
    guard._directory, guard._references = StageDir(tmp_path), references
    guard._best, guard._num_without_gain = None, 0
    return guard


def steps_kept(tmp_path) -> list[int]:
    return sorted(int(folder.name.removeprefix("step_")) for folder in StageDir(tmp_path).candidates.iterdir())


def test_an_older_checkpoint_keeps_the_model_that_it_needs(tmp_path, keeper):
    """Scored often between two checkpoints: the newest may be damaged, and the one before needs its own best model."""
    save(keeper, 4, 2)
    guard = guard_of(tmp_path, keeper_of(tmp_path, "resumed").candidates)
    for step, score in ((2, 0.2), (5, 0.3), (6, 0.4), (7, 0.5)):  # as recalled, then as scored
        StageDir(tmp_path).candidate(step).model.mkdir(parents=True)
        guard.recall(step, score)
        guard._delete_candidates()
    assert steps_kept(tmp_path) == [2, 7]
    save(keeper, 8, 7)
    save(keeper, 12, 7)
    guard._references = keeper.candidates
    guard._delete_candidates()
    assert steps_kept(tmp_path) == [7]


@pytest.mark.parametrize(("keep", "references", "kept"), [("best", None, [1, 2]), ("last", frozenset({1}), [])])
def test_nothing_goes_on_a_guess_and_a_guard_that_keeps_the_last_needs_none(tmp_path, keep, references, kept):
    guard = guard_of(tmp_path, lambda: references, keep)
    for step in (1, 2):
        StageDir(tmp_path).candidate(step).model.mkdir(parents=True)
    guard.recall(2, 1.0)
    guard._delete_candidates()
    assert steps_kept(tmp_path) == kept
