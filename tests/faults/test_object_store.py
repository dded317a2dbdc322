"""Checkpoints in a real S3-compatible server instead of a folder."""

from collections.abc import Iterator

import pytest

from sftkey_dist.errors import ConfigError, StorageError
from sftkey_dist.training.checkpoint import Needs, newest_step, open_storage, remove_checkpoints, require_space
from sftkey_dist.training.checkpoint import storage as storage_module
from sftkey_dist.training.checkpoint.storage import ObjectStorage
from tests.distributed.harness import run_ranks, train
from tests.object_store import KEYS, ObjectStore, object_store


@pytest.fixture(scope="module")
def bucket() -> Iterator[ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with object_store() as store:
            yield store


def test_a_stage_resumes_from_an_object_store_and_goes_back_past_a_damaged_checkpoint(bucket, make_job, tmp_path):
    whole = make_job(tmp_path / "whole")
    stored, damaged = (
        make_job(tmp_path / name).model_copy(update={"checkpoints": bucket.uri(name)}) for name in ("stored", "damaged")
    )
    run_ranks(2, train, [whole])
    run_ranks(2, train, [stored, damaged], 9)
    storages = {job.checkpoints: open_storage(job.checkpoints) for job in (stored, damaged)}
    assert [newest_step(storage) for storage in storages.values()] == [9, 9]
    storage = storages[damaged.checkpoints]
    (newest,) = (folder for folder in storage.folders() if folder.startswith("step_00000009"))
    with storage.writing(newest, "rank_00001.safetensors") as file:
        file.write_bytes(b"not what was written")
    run_ranks(2, train, [stored, damaged])
    with pytest.raises(FileNotFoundError), storage.reading(newest, "rank_00007.safetensors"):
        pass
    for job in (stored, damaged):
        for file in ("metrics.jsonl", "model/model.safetensors"):
            assert (job.stage_dir / file).read_bytes() == (whole.stage_dir / file).read_bytes()
    assert "damaged" in (damaged.stage_dir / "events.jsonl").read_text()
    assert not (stored.stage_dir / "checkpoints").exists()
    remove_checkpoints(storage)
    assert storage.folders() == []


class Unsteady:
    """A file system that fails so many times before it answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def get_file_info(self, selector):
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2 operation")
        return []


def test_a_storage_that_is_away_for_a_while_is_asked_again_and_then_named(monkeypatch):
    monkeypatch.setattr(storage_module, "_FIRST_PAUSE_SECONDS", 0.001)
    assert ObjectStorage("s3://runs", Unsteady(4), "runs").folders() == []
    with pytest.raises(StorageError, match="s3://runs does not answer: AWS Error NETWORK_CONNECTION"):
        newest_step(ObjectStorage("s3://runs", Unsteady(5), "runs"))


def test_a_storage_that_cannot_be_written_to_is_found_before_the_first_step(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_module, "_FIRST_PAUSE_SECONDS", 0.001)
    needs = Needs(1000, 1000, "float32", num_checkpoints=3, num_models=1)
    good = open_storage(bucket.uri("probe"))
    require_space(good, tmp_path, needs)
    assert good.folders() == []
    missing = bucket.uri("probe").replace("s3://runs", "s3://no-such-bucket").replace("&allow_bucket_creation=true", "")
    with pytest.raises(ConfigError, match="checkpoint_storage cannot be written to: s3://no-such-bucket"):
        require_space(open_storage(missing), tmp_path, needs)


def test_a_storage_that_nobody_knows_is_named():
    with pytest.raises(ConfigError, match="nowhere://x"):
        open_storage("nowhere://x")
