import errno
import json
import math
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sftkey_dist import files
from sftkey_dist.errors import DataError
from sftkey_dist.files import (
    copy_atomically,
    copy_if_absent,
    copy_tree,
    file_written_whole,
    folder_written_whole,
    open_to_append,
    remove_scratch,
    remove_tree,
    write_json_atomically,
    write_text_atomically,
    write_text_if_absent,
)
from sftkey_dist.models.folder import link_file
from sftkey_dist.reading import read_json
from sftkey_dist.report.plots import plot_lengths
from sftkey_dist.report.study.plots import plot_seeds
from sftkey_dist.run_dir.journal import append_event, append_records, keep_records, read_records
from sftkey_dist.training.checkpoint.storage import FolderStorage


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path):
    file = tmp_path / "x.json"
    write_text_atomically(file, "old")
    with pytest.raises(TypeError):
        write_json_atomically(file, {"bad": object()})
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def is_full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_text_atomically(tmp_path / "x.json", "new")
    assert raised.value.filename == str(tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail_halfway():
        with folder_written_whole(tmp_path / "a") as scratch:
            (scratch / "one").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []
    with folder_written_whole(tmp_path / "a") as scratch:
        (scratch / "one").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "one").read_text() == "1"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_first_of_two_writers_wins(tmp_path):
    with folder_written_whole(tmp_path / "a") as late:
        with folder_written_whole(tmp_path / "a") as early:
            (early / "who").write_text("early")
        (late / "who").write_text("late")
    assert (tmp_path / "a" / "who").read_text() == "early"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_no_finite_number_is_null_in_every_file(tmp_path):
    content = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, {"c": math.nan})], "d": "NaN", "e": True}
    known = {"a": None, "b": [1.5, None, [None, {"c": None}]], "d": "NaN", "e": True}
    write_json_atomically(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == known
    append_records(tmp_path / "x.jsonl", [content])
    assert read_records(tmp_path / "x.jsonl") == [known]
    assert (tmp_path / "x.jsonl").read_text().count("NaN") == 1


def write_tensors(path):
    with file_written_whole(path) as scratch:
        save_file({"w": torch.ones(2)}, scratch)


WRITERS = {
    "text": lambda path: write_text_atomically(path, "new"),
    "JSON": lambda path: write_json_atomically(path, {}),
    "a copy": lambda path: copy_atomically(Path(__file__), path),
    "a figure": lambda path: plot_lengths(np.ones((3, 2), dtype=int), ["prompt", "answer"], path),
    "a study's figure": lambda path: plot_seeds({"a": {"sft": [0.1, 0.2]}}, "score", path),
    "a journal that is cut": lambda path: keep_records(path, lambda record: True),
    "weights": write_tensors,
}


def test_a_removed_folder_frees_its_name_whatever_of_it_cannot_be_removed(tmp_path, monkeypatch):
    """A file of it may be open on NFS, which keeps it under another name."""
    folder = tmp_path / "model"
    for _ in range(2):
        folder.mkdir()
        (folder / "weights").write_text("old")
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            remove_tree(folder)
        assert not folder.exists()
    with folder_written_whole(folder) as scratch:
        (scratch / "weights").write_text("new")
    assert (folder / "weights").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 3
    remove_scratch(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / ".lock", tmp_path / "stages" / "full" / ".hidden", tmp_path / "stages" / "a.unfinished"]
    left = [tmp_path / ".model.x7_a.unfinished" / "config.json", tmp_path / "stages" / ".README.md._.unfinished"]
    for file in (*kept, *left):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    remove_scratch(tmp_path, at_any_depth=False)
    assert [file.exists() for file in (*kept, *left)] == [True] * 3 + [False, True]
    remove_scratch(tmp_path)
    assert [file.exists() for file in (*kept, *left)] == [True] * 3 + [False] * 2


def test_a_text_is_not_written_over_another_commands(tmp_path):
    write_text_if_absent(tmp_path / "identity", "first")
    write_text_if_absent(tmp_path / "identity", "second")
    assert (tmp_path / "identity").read_text() == "first"


def test_errors_of_libraries_name_the_file_that_could_not_be_written(tmp_path):
    """numpy reports a full disk as an error with a text alone, and shutil as a list of files."""
    with pytest.raises(OSError, match="12000 requested") as raised, file_written_whole(tmp_path / "hashes.npy"):
        raise OSError("12000 requested and 5088 written")
    assert raised.value.filename == str(tmp_path / "hashes.npy")

    def fail(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", target)

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_text("")
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="No space left") as raised:
        copy_tree(tmp_path / "source", tmp_path / "target", fail)
    assert raised.value.errno is not None


@pytest.mark.parametrize("has_hard_links", [True, False])
def test_a_file_that_another_command_has_just_created_is_kept(tmp_path, monkeypatch, has_hard_links):
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_hard_links:
        monkeypatch.setattr(os, "link", fail)
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_text("ours")
    source.chmod(0o600)
    copy_if_absent(source, target)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("ours", 0o666 & ~files._umask())
    source.write_text("ours again")
    if has_hard_links:
        copy_if_absent(source, target)
        assert target.read_text() == "ours"
    assert [file.name for file in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_is_written_replaces_a_link_and_has_the_mode_that_the_umask_gives(tmp_path, writer, umask):
    outside, link = tmp_path / "outside", tmp_path / "run" / "file.svg"
    outside.write_text("")
    outside.chmod(0o600)
    link.parent.mkdir()
    link.symlink_to(outside)
    before = os.umask(umask)
    try:
        WRITERS[writer](link)
    finally:
        os.umask(before)
    assert outside.read_text() == "", "nothing was written through the link"
    assert not link.is_symlink()
    assert link.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [file.name for file in link.parent.iterdir()] == [link.name]


def test_files_of_a_checkpoint_replace_links_too(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / "step").mkdir()
    for name in ("manifest.json", ".manifest.json"):
        (tmp_path / "step" / name).symlink_to(outside)
    with FolderStorage(tmp_path).writing("step", "manifest.json") as file:
        file.write_text("new")
    assert outside.read_text() == "kept"
    assert (tmp_path / "step" / "manifest.json").read_text() == "new"


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_journal_that_is_no_file_of_its_own_is_not_appended_to(tmp_path, kind):
    journal, outside = tmp_path / "metrics.jsonl", tmp_path / "outside"
    if kind == "link":
        outside.write_text("")
    if "link" in kind:
        journal.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(journal)
    else:
        journal.mkdir()
    for append in (
        lambda: append_records(journal, [{"step": 0}]),
        lambda: append_event(journal, "event", "message"),
        lambda: open_to_append(journal),
    ):
        with pytest.raises(DataError, match=r"metrics.jsonl: a link or not a regular file.*remove it"):
            append()
    assert not outside.exists() or outside.read_text() == ""


def test_a_folder_that_a_library_filled_can_be_read_by_those_whom_the_umask_lets(tmp_path):
    """safetensors writes for its owner alone; a file shared with another model keeps that one's mode."""
    shared = tmp_path / "shared"
    shared.write_text("")
    shared.chmod(0o400)
    with folder_written_whole(tmp_path / "model") as scratch:
        save_file({"w": torch.ones(2)}, scratch / "model.safetensors")
        (scratch / "model.safetensors").chmod(0o600)
        link_file(shared, scratch / "vocab.json")
    expected = 0o666 & ~files._umask()
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o777 == expected
    assert shared.stat().st_mode & 0o777 == 0o400


def test_the_umask_is_read_without_being_set(monkeypatch):
    """Another thread that makes a file meanwhile would make it open to everybody."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("it was set"))
        found = []
        thread = threading.Thread(target=lambda: found.append(files._umask()))
        thread.start()
        thread.join()
        assert found == [0o027]
    finally:
        monkeypatch.undo()
        os.umask(before)


def flushed(monkeypatch) -> list[str]:
    """What is flushed to disk from now on, and what is renamed, in order; scratch names without their random ends."""
    seen, fsync, replace = [], os.fsync, os.replace

    def note_fsync(descriptor):
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_replace(source, target):
        seen.append(f"-> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    return seen


def test_content_then_name_then_folder_reach_the_disk(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    seen = flushed(monkeypatch)
    write_text_atomically(tmp_path / "run" / "stage.json", "{}")
    scratch, renamed, folder = seen
    assert scratch.startswith(".stage.json.")
    assert (renamed, folder) == ("-> stage.json", "run")
    seen.clear()
    with folder_written_whole(tmp_path / "run" / "model") as scratch_folder:
        (scratch_folder / "weights").write_text("w")
        (scratch_folder / "deep").mkdir()
        (scratch_folder / "deep" / "file").write_text("f")
    assert {"weights", "file", "deep"} < set(seen[:-2])
    assert seen[-3].startswith(".model."), "the scratch folder, whose entries are complete"
    assert seen[-2:] == ["-> model", "run"]
    seen.clear()
    write_text_atomically(tmp_path / "new" / "deeper" / "file", "x")
    assert {"new", "deeper", tmp_path.name} <= set(seen), "the names of new folders too"


def test_a_model_folder_that_is_a_link_is_not_taken_for_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="model"), folder_written_whole(tmp_path / "model") as scratch:
        (scratch / "weights").write_text("w")
    assert list((tmp_path / "elsewhere").iterdir()) == []


DAMAGED = {
    "empty": (b"", "empty"),
    "NULs": (b"\0" * 4096, "contains only NULs or blanks"),
    "cut off": (b'{"steps": 1, "tok', "damaged or cut off"),
    "two values": (b"{}{}", "damaged or cut off"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8 text"),
    "deep": (b'{"a": ' + b"[" * 200_000, "damaged or cut off .*nested too deeply"),
    "a list": (b"[1]", "Input should be a valid dictionary"),
    "a long number": (b'{"a": ' + b"1" * 5000 + b"}", "damaged or cut off"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, damage):
    file = tmp_path / "stage.json"
    content, message = DAMAGED[damage]
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"stage\.json: {message}.*; do this$") as raised:
        read_json(file, "do this")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_missing_file_a_folder_and_a_pipe_are_named_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "."):
        with pytest.raises(DataError, match=r"cannot be read|not a regular file"):
            read_json(tmp_path / name)
