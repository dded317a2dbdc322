"""The local files of a source: one file, the files that match a pattern, or those of a split in a folder."""

import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from sftkey_dist.config.data import FILE_FORMATS, SourceConfig, uncompressed_name
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import DataError

_HOLDS_ROWS = frozenset(FILE_FORMATS) - {".json"}
"""Formats of files that certainly contain rows; a .json file in a folder may also be a description of the data."""
_LOOKS_LIKE_A_FILE = re.compile(r"\.(jsonl|json|csv|tsv|parquet|arrow|txt)(\.gz|\.zst)?$|\*", re.IGNORECASE)


def local_files(source: SourceConfig) -> list[str]:
    """The local files of a source; empty if the source is on the hub."""
    path = source.path or ""
    if "*" in path:
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            raise DataError(f"{path}: no file matches")
        return found
    if Path(path).is_file() or (_LOOKS_LIKE_A_FILE.search(path) and not Path(path).is_dir()):
        return [path]
    return _files_of_folder(source) if path and Path(path).is_dir() else []


def _files_of_folder(source: SourceConfig) -> list[str]:
    """The files of a split, as `datasets` finds them, sorted by name.

    Raises:
        DataError: There are none, or it is unclear whether some files of the folder belong to the split.
    """
    folder = str(source.path)
    by_split = _splits_of_folder(folder, source.subset)
    if source.split not in by_split:
        raise DataError(
            f"{folder}: no files of split {source.split!r}; there are {', '.join(by_split) or 'no data files'}"
        )
    listed = {file for files in by_split.values() for file in files}
    left_out = sorted(set(_data_files_below(folder)) - listed)
    if left_out and source.subset is None and not (Path(folder) / "README.md").is_file():
        raise DataError(
            f"{folder}: {left_out[0]} is of another format than the other files, or its name has no split; move it, or "
            f"give a pattern such as {folder}/*{Path(left_out[0]).suffix}"
        )
    return by_split[source.split]


def _splits_of_folder(folder: str, subset: str | None) -> dict[str, list[str]]:
    """The files of each split.

    `datasets` only finds the files. Its readers are not used, because they guess types: text that looks like a date
    becomes a timestamp.
    """
    with loading_errors_as_data_errors(folder):
        found = datasets.load_dataset_builder(folder, subset).config.data_files or {}
    return {str(split): sorted(_as_below(folder, str(file)) for file in files) for split, files in found.items()}


def _as_below(folder: str, file: str) -> str:
    """The path of a file below the folder as it was given; links inside the folder are not followed."""
    for root in (os.path.abspath(folder), os.path.realpath(folder)):
        if file.startswith(root + os.sep):
            return os.path.join(folder, os.path.relpath(file, root))
    return file


def _data_files_below(folder: str) -> Iterator[str]:
    for file in Path(folder).rglob("*"):
        is_hidden = any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
        if file_format(file.name) in _HOLDS_ROWS and not is_hidden and file.is_file():
            yield str(file)


def file_format(path: str) -> str:
    """The format of a file by the ending of its name in lower case, such as `.jsonl`."""
    return uncompressed_name(path).suffix.lower()


def require_file(path: str) -> None:
    """
    Raises:
        DataError: There is no such file.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such data file")


@contextmanager
def loading_errors_as_data_errors(path: str, split: str = "") -> Iterator[None]:
    """Convert errors of `datasets`, which raises many unrelated classes, to a DataError of one line."""
    try:
        yield
    except Exception as error:
        problem = in_a_line(error, 300)
        if not split:
            raise DataError(f"{path}: cannot find data files in this folder: {problem}") from error
        raise DataError(
            f"cannot load data set {path!r} (split {split!r}) from the hub: {problem}; for a local file give a path "
            f"that ends in .jsonl, .json, .csv, .tsv or .parquet"
        ) from error
