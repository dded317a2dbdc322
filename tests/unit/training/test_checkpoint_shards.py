"""Checkpoints of any number of ranks, without engines."""

import errno
import shutil
from types import SimpleNamespace

import pytest
import torch

from sftkey_dist.errors import CheckpointError, ConfigError, StorageError, TrainingError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.checkpoint import CheckpointKeeper, Needs, Snapshot, load_shards, open_storage, require_space
from sftkey_dist.training.checkpoint.keeper import committed
from sftkey_dist.training.checkpoint.storage import FolderStorage
from sftkey_dist.training.resume import restore

NUMELS = {"w": 10, "v": 7, "b": 1}
"""Elements that most numbers of ranks do not divide, and fewer than there are ranks."""


class Slices:
    """One rank's share of parameters whose elements are their own positions, as ZeRO-3 cuts them."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size, self.values = rank, world_size, {}
        for number, (name, numel) in enumerate(NUMELS.items()):
            size = -(-numel // world_size)
            whole = torch.zeros(size * world_size)
            whole[:numel] = 100 * (number + 1) + torch.arange(numel)
            self.values[name] = whole[rank * size : (rank + 1) * size]

    def local_state(self):
        for name, values in self.values.items():
            yield name, NUMELS[name], {"master": values, "exp_avg": -values}

    def load_local_state(self, slices_of, optimizer_steps):
        assert optimizer_steps == 4
        for name, values in self.values.items():
            offset = self.rank * len(values)
            assert slices_of(name, "master", offset, len(values)).tolist() == values.tolist(), name
            assert slices_of(name, "exp_avg", offset, len(values)).tolist() == (-values).tolist(), name


def keeper_of(folder, rank=0, world_size=1, attempt="a") -> CheckpointKeeper:
    return CheckpointKeeper(
        FolderStorage(folder), "stage", rank=rank, world_size=world_size, timeout_seconds=5, attempt=attempt
    )


def write(folder, world_size: int, steps_done: int = 4, attempt: str = "a") -> str:
    keepers = [keeper_of(folder, rank, world_size, attempt) for rank in range(world_size)]
    for rank, keeper in reversed(list(enumerate(keepers))):
        keeper.save(Snapshot(Slices(rank, world_size), steps_done, 0))
    for keeper in keepers:
        keeper.wait()
    return keepers[0].newest_first()[0]


@pytest.mark.parametrize("read_by", [1, 2, 3, 5])
@pytest.mark.parametrize("written_by", [1, 2, 3, 4])
def test_any_ranks_read_what_any_others_have_written(tmp_path, written_by, read_by):
    folder = write(tmp_path, written_by)
    for rank in range(read_by):
        keeper = keeper_of(tmp_path, rank, read_by)
        manifest = keeper.read_manifest(folder)
        keeper.verify(folder, manifest)
        load_shards(Slices(rank, read_by), keeper.storage, folder, manifest)


@pytest.mark.parametrize("read_by", [1, 2, 3, 5])
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_shard_is_found_by_one_of_any_ranks(tmp_path, damaged, read_by):
    folder = write(tmp_path, 3)
    file = tmp_path / folder / f"rank_{damaged:05d}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found = []
    for rank in range(read_by):
        keeper = keeper_of(tmp_path, rank, read_by)
        try:
            keeper.verify(folder, keeper.read_manifest(folder))
        except CheckpointError as error:
            found.append(str(error))
    (message,) = found
    assert message.startswith(f"{file.name} differs from what was written")


def test_a_checkpoint_that_was_set_aside_takes_no_place_of_a_good_one(tmp_path):
    names = [write(tmp_path, 1, steps_done) for steps_done in (4, 8)]
    keeper_of(tmp_path).set_aside(names[1], "a bit flipped")
    assert keeper_of(tmp_path).newest_first() == [names[0]]
    again = write(tmp_path, 1, 8, attempt="b")
    assert keeper_of(tmp_path).newest_first() == [again, names[0]]


def test_a_checkpoint_that_is_removed_by_halves_is_none(tmp_path, monkeypatch):
    folder, storage = write(tmp_path, 1), FolderStorage(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    storage.remove(folder, "manifest.json")
    assert committed(storage) == []


def test_a_snapshot_does_not_change_with_the_next_step():
    state = Slices(0, 1)
    snapshot = Snapshot(state, 4, 0)
    for values in state.values.values():
        values.zero_()
    assert snapshot._tensors["w|master"].tolist() == [100.0 + n for n in range(10)]


@pytest.mark.parametrize(("number", "kind"), [(errno.ESTALE, StorageError), (errno.ENOSPC, TrainingError)])
def test_what_could_not_be_written_is_raised_by_the_next_wait_as_what_it_is(tmp_path, monkeypatch, number, kind):
    def refuse(snapshot, file):
        raise OSError(number, "no")

    monkeypatch.setattr(Snapshot, "write", refuse)
    keeper = keeper_of(tmp_path)
    keeper.save(Snapshot(Slices(0, 1), 4, 0))
    with pytest.raises(TrainingError, match="the checkpoint after 4 steps could not be written") as raised:
        keeper.wait()
    assert type(raised.value) is kind
    assert keeper.newest_first() == []


@pytest.mark.parametrize("planned", [0, 1])
def test_a_checkpoint_is_gone_on_from_only_where_its_last_step_is_planned_again(tmp_path, planned):
    """Of a store whose rows have another order, say; the digest of the examples of step 3 was 0."""
    write(tmp_path, 2)
    engine = SimpleNamespace(rank=0, state=Slices(0, 1), store_collectives=SimpleNamespace(gather=lambda note: [note]))
    planner = SimpleNamespace(plan=lambda step: SimpleNamespace(members_digest={3: planned}[step]))
    if not planned:
        assert restore(engine, planner, keeper_of(tmp_path), StageDir(tmp_path)) == 4
        return
    with pytest.raises(TrainingError, match="was written with another order of the data; remove"):
        restore(engine, planner, keeper_of(tmp_path), StageDir(tmp_path))


def test_space_for_predictions_of_the_start_and_for_masters_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 2**30))
    storage = open_storage(tmp_path / "checkpoints")

    def needs(**more) -> Needs:
        return Needs(100_000_000, 1_000_000, "float32", 3, 4, **more)

    require_space(storage, tmp_path, needs())
    with pytest.raises(ConfigError, match=r"take 3\.0 GiB"):
        require_space(storage, tmp_path, needs(hands_on_masters=True))
    with pytest.raises(ConfigError, match=r"take 3\.5 GiB"):
        require_space(storage, tmp_path, needs(anchor_bytes=2 * 2**30))
