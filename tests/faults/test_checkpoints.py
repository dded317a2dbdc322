"""Checkpoints that are torn, rotten or gone: training goes on from the newest whole one, to the same bytes."""

import os
import pickle
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.training.checkpoint import Snapshot, newest_step, open_storage
from sftkey_dist.training.checkpoint.storage import FolderStorage
from sftkey_dist.training.job import StageJob
from tests.distributed.harness import checkpoints_of, run_ranks, train

EVERY = 3
NEWEST, BEFORE = 9, 6


@pytest.fixture(scope="module")
def clean(tmp_path_factory, make_job) -> StageJob:
    """A stage that nothing happened to."""
    job = make_job(tmp_path_factory.mktemp("clean"))
    run_ranks(2, train, [job])
    return job


@pytest.fixture(scope="module")
def broken(tmp_path_factory, make_job) -> StageJob:
    """A stage that ended after its checkpoint of step 9, when that of step 6 was kept too."""
    job = make_job(tmp_path_factory.mktemp("broken"))
    run_ranks(2, train, [job], NEWEST)
    assert sorted(step_of(folder) for folder in Path(job.checkpoints).iterdir()) == [BEFORE, NEWEST]
    return job


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_").split("-")[0])


def checkpoint(job: StageJob, step: int) -> Path:
    (folder,) = Path(job.checkpoints).glob(f"step_{step:08d}-*")
    return folder


def assert_same(job: StageJob, clean: StageJob) -> None:
    for file in ("metrics.jsonl", "model/model.safetensors"):
        assert (job.stage_dir / file).read_bytes() == (clean.stage_dir / file).read_bytes(), job.stage_dir


def flip_a_bit(folder: Path) -> None:
    file = folder / "rank_00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def cut(file: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * share)])

    return damage


def name_another_stage(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"stage":"stage"', '"stage":"another"'))


class TouchesAFile:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def plant_a_pickle(folder: Path) -> None:
    (folder / "rank_00000.safetensors").write_bytes(pickle.dumps(TouchesAFile(folder.parent.parent / "executed")))


@dataclass(frozen=True)
class Fault:
    """What is done to checkpoints, and what the events must name."""

    damage: Callable[[Path], None]
    named: str
    steps: tuple[int, ...] = (NEWEST,)


FAULTS = {
    "a bit flips": Fault(flip_a_bit, "rank_00001.safetensors differs from what was written"),
    "a shard is cut": Fault(cut("rank_00000.safetensors", 0.5), "rank_00000.safetensors differs from what was written"),
    "a shard is empty": Fault(cut("rank_00001.safetensors", 0), "(0 of "),
    "a shard is gone": Fault(lambda folder: (folder / "rank_00001.safetensors").unlink(), "cannot be read"),
    "the manifest is cut": Fault(cut("manifest.json", 0.5), "the manifest is damaged"),
    "the manifest is of another stage": Fault(name_another_stage, "it belongs to stage another"),
    "a shard is a pickle that runs code": Fault(plant_a_pickle, "rank_00000.safetensors differs from what was written"),
    "the manifest was never written": Fault(lambda folder: (folder / "manifest.json").unlink(), ""),
    "the newest is gone": Fault(shutil.rmtree, ""),
    "the oldest is gone": Fault(shutil.rmtree, "", (BEFORE,)),
    "all are damaged": Fault(flip_a_bit, "no intact checkpoint is left: the stage starts over", (BEFORE, NEWEST)),
}


def test_a_damaged_checkpoint_is_set_aside_and_training_ends_in_the_same_bytes(tmp_path, make_job, clean, broken):
    """All faults after one another in the same processes; both ranks must agree on which checkpoint to take."""
    jobs = {}
    for number, (name, fault) in enumerate(FAULTS.items()):
        jobs[name] = make_job(tmp_path / str(number))
        shutil.copytree(broken.stage_dir, jobs[name].stage_dir)
        for step in fault.steps:
            fault.damage(checkpoint(jobs[name], step))
    run_ranks(2, train, list(jobs.values()))
    for name, job in jobs.items():
        assert_same(job, clean)
        events = [record["message"] for record in read_records(StageDir(job.stage_dir).events)]
        assert any(FAULTS[name].named in event for event in events) if FAULTS[name].named else not events, name
        assert not (job.stage_dir / "executed").exists()
        if "is damaged" in "".join(events):
            assert (checkpoint(job, NEWEST) / "damaged.txt").is_file() or "all" in name, "kept for a person to look at"


def without_storage(job: StageJob) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "the storage does not answer")

    FolderStorage.reading = refuse  # type: ignore[assignment, method-assign]
    train([job])


def test_a_storage_that_does_not_answer_says_nothing_about_its_checkpoints(tmp_path, make_job, clean, broken):
    job = make_job(tmp_path)
    shutil.copytree(broken.stage_dir, job.stage_dir)
    with pytest.raises(ProcessRaisedException, match="the storage does not answer"):
        run_ranks(2, without_storage, job)
    assert not list(Path(job.checkpoints).rglob("damaged.txt"))
    run_ranks(2, train, [job])
    assert_same(job, clean)
    assert not read_records(StageDir(job.stage_dir).events)


def kill_rank_1_in_the_middle_of_a_shard(job: StageJob) -> None:
    write = Snapshot.write

    def die(snapshot: Snapshot, file: Path) -> None:
        write(snapshot, file)
        if snapshot.steps_done == BEFORE and "rank_00001" in file.name:
            os.truncate(file, file.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    Snapshot.write = die  # type: ignore[method-assign]
    train([job])


def test_a_rank_that_dies_while_it_writes_leaves_no_checkpoint(tmp_path, make_job, clean):
    job = make_job(tmp_path)
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        run_ranks(2, kill_rank_1_in_the_middle_of_a_shard, job)
    assert newest_step(open_storage(job.checkpoints)) == EVERY
    assert checkpoint(job, BEFORE).is_dir(), "what it left"
    run_ranks(2, train, [job])
    assert_same(job, clean)
    assert all((folder / "manifest.json").is_file() for folder in Path(job.checkpoints).iterdir()), "what is torn goes"


def die_when_the_checkpoint_is_saved(job: StageJob) -> None:
    keeper = checkpoints_of(job)
    save = type(keeper).save

    def save_and_die(self, snapshot: Snapshot) -> None:
        save(self, snapshot)
        self.wait()
        if self.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    type(keeper).save = save_and_die  # type: ignore[method-assign]
    train([job])


def test_a_checkpoint_that_was_waited_for_outlives_all_ranks(tmp_path, make_job, clean):
    job = make_job(tmp_path)
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        run_ranks(2, die_when_the_checkpoint_is_saved, job)
    assert newest_step(open_storage(job.checkpoints)) == EVERY
    run_ranks(2, train, [job])
    assert_same(job, clean)


def train_blindly(job: StageJob) -> None:
    """Without looking at the free space first: it may be gone by the time of writing."""
    FolderStorage.free_bytes = lambda self: None  # type: ignore[assignment, method-assign, return-value]
    train([job])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize(
    ("work", "message"), [(train, "MiB are free"), (train_blindly, r"No space left|os error 28|code: 28")]
)
def test_a_full_disk_keeps_the_last_checkpoint_and_is_named(tmp_path, make_job, clean, work, message):
    job = make_job(tmp_path)
    disk = Path(job.checkpoints)
    disk.mkdir(parents=True)
    size = sum(file.stat().st_size for file in checkpoint_files(clean, disk)) or 1
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    try:
        with pytest.raises(ProcessRaisedException, match=message) as raised:
            run_ranks(2, work, [job] if work is train else job)
        assert "could not be written" in str(raised.value)
        assert newest_step(open_storage(job.checkpoints)) == BEFORE
        assert not list(disk.glob("*/.*")), "nothing half-written"
        subprocess.run(["mount", "-o", f"remount,size={4 * size}", disk], check=True)
        run_ranks(2, train, [job])
        assert_same(job, clean)
    finally:
        subprocess.run(["umount", disk], check=True)


def checkpoint_files(clean: StageJob, disk: Path) -> list[Path]:
    """Two checkpoints and a half."""
    one = list(Path(clean.checkpoints).glob(f"step_{NEWEST:08d}-*/*"))
    return one + one + one[: len(one) // 2]


def without_a_compiler(job: StageJob) -> None:
    os.environ["PATH"] = ""
    train([job])


def test_training_needs_no_compiler(tmp_path, make_job, clean):
    job = make_job(tmp_path)
    run_ranks(2, without_a_compiler, job)
    assert_same(job, clean)
