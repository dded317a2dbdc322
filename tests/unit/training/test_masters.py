"""Float32 weights on disk, and what rounding leaves of an update."""

import pytest
import torch
from safetensors.torch import save_file

from sftkey_dist.errors import ModelError
from sftkey_dist.pipeline.rounding import rounding_in_words
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import Rounding
from sftkey_dist.training.weights import masters
from sftkey_dist.training.weights.masters import (
    MastersManifest,
    StoredWeights,
    commit_masters,
    owners_of,
    turns_of,
    update_sums,
    verify_masters,
    write_masters,
)
from tests.records import stage_summary


def test_ranges_are_those_of_the_flattened_weight_with_zeros_past_its_end(tmp_path):
    weights = {
        "matrix": torch.randn(5, 3, 2),
        "vector": torch.randn(7),
        "ten bits": torch.randn(6).half(),
        "half": torch.randn(4, 2).bfloat16(),
    }
    save_file(weights, tmp_path / "model.safetensors")
    stored = StoredWeights.in_folder(tmp_path)
    for name, weight in weights.items():
        flat = torch.cat([weight.float().flatten(), torch.zeros(20)])
        for offset in range(weight.numel() + 3):
            for size in (1, 2, 7, 11):
                assert torch.equal(stored.range(name, offset, size), flat[offset : offset + size])
        assert torch.equal(stored.whole(name), weight.float())
    assert stored.finer_than("bfloat16") == {"matrix", "vector", "ten bits"}
    assert stored.finer_than("float32") == frozenset()
    stored.close()


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        StoredWeights.in_folder(tmp_path)


def test_every_weight_has_one_owner_and_loads_are_level():
    sizes = {f"w{number}": 100 + number for number in range(40)} | {"embedding": 1500}
    owners = owners_of(sizes, 4)
    assert set(owners) == set(sizes)
    loads = [sum(sizes[name] for name, owner in owners.items() if owner == rank) for rank in range(4)]
    assert max(loads) < 1.1 * min(loads)
    assert owners_of(sizes, 4) == owners_of(dict(reversed(sizes.items())), 4), "all ranks decide the same"


def test_every_weight_is_written_in_one_turn_and_no_file_is_too_large():
    sizes = {f"w{number}": 100 + number for number in range(40)} | {"embedding": 1500}
    owners = owners_of(sizes, 4)
    turns = turns_of(owners, sizes, max_size=500)
    assert sorted(name for turn in turns for name in turn) == sorted(sizes)
    for turn in turns:
        for rank in range(4):
            mine = [name for name in turn if owners[name] == rank]
            assert sum(sizes[name] for name in mine) <= 500 or mine == ["embedding"]
    assert len(turns) < 6
    assert turns_of(owners, sizes, max_size=10**6) == [set(sizes)]
    assert turns_of({}, {}, max_size=1) == [set()]


def notes_of(folder, rank: int) -> str:
    """What a rank notes of its two files."""
    first = write_masters(folder, rank, 0, {f"w{rank}": torch.randn(3)})
    second = write_masters(folder, rank, 1, {f"v{rank}": torch.randn(3)} if rank else {})
    assert list(second) == ([f"rank_{rank:05d}_1.safetensors"] if rank else [])
    return MastersManifest(files=first | second).model_dump_json()


def test_masters_count_when_all_are_written_and_each_file_is_checked_by_one_rank(tmp_path):
    stage = StageDir(tmp_path)
    notes = [notes_of(stage.masters, rank) for rank in range(3)]
    assert not stage.has_masters
    commit_masters(stage.masters, notes)
    assert stage.has_masters
    for world_size in (1, 2, 5):
        for rank in range(world_size):
            verify_masters(stage.masters, rank, world_size)
    assert len(StoredWeights.in_folder(stage.masters)._files) == 5
    (stage.masters / "rank_00002.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"rank_00002\.safetensors: the file differs from what was written; remove the folder"
    ):
        verify_masters(stage.masters, 0, 1)
    (stage.masters / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="remove the folder"):
        verify_masters(stage.masters, 0, 1)


def rounding_of(start: torch.Tensor, update: torch.Tensor) -> Rounding:
    return Rounding.of_sums("bfloat16", update_sums(start, start + update, torch.bfloat16).tolist())


def test_from_the_grid_a_small_update_is_lost_and_off_it_none_is():
    """Steps of 1e-5 on weights of about 0.02, whose bfloat16 neighbours are 1.2e-4 apart."""
    torch.manual_seed(0)
    weights = 0.02 * torch.randn(200_000)
    update = 1e-5 * torch.randn(200_000).sign()
    off_grid, on_grid = rounding_of(weights, update), rounding_of(weights.bfloat16().float(), update)
    assert off_grid.surviving_share == pytest.approx(1, abs=0.05)
    assert on_grid.surviving_share < 0.35
    assert 0 < on_grid.num_changed < off_grid.num_changed < off_grid.num_weights == 200_000
    assert rounding_of(weights, torch.zeros(200_000)).surviving_share is None


def test_a_large_weight_is_compared_part_by_part(monkeypatch):
    torch.manual_seed(0)
    start, end = torch.randn(37, 11), torch.randn(37, 11)
    whole = update_sums(start, end, torch.bfloat16)
    monkeypatch.setattr(masters, "_ELEMENTS_AT_ONCE", 100)
    torch.testing.assert_close(update_sums(start, end, torch.bfloat16), whole)
    assert whole[0] == 37 * 11
    assert update_sums(torch.zeros(0), torch.zeros(0), torch.bfloat16).tolist() == [0, 0, 0, 0]


def test_a_stage_whose_gain_rounding_removes_is_a_loud_warning_with_the_remedy():
    lost = Rounding(precision="bfloat16", num_weights=1000, num_changed=77, surviving_share=0.13)
    said, warning = rounding_in_words(stage_summary(rounding=lost, gain=0.0035))
    assert said.startswith("77 of 1,000 stored weights changed; 13% of the update is left after rounding to bfloat16")
    assert "fell by 0.0035, before rounding by about 0.02692" in said
    assert warning.startswith("warning: rounding to bfloat16 removes 87% of what this stage learned from the published")
    assert "training.export_precision=float32" in warning
    kept = lost.model_copy(update={"surviving_share": 0.99})
    assert len(list(rounding_in_words(stage_summary(rounding=kept)))) == 1
