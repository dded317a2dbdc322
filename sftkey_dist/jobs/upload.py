"""Selects the files that are sent with a job: the merged configuration, and files of the user's folder.

Of the folder, only files that git tracks or that the user names are sent. Excluding names that look like secrets
instead would always miss some.
"""

import fnmatch
import glob
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sftkey_dist.config.named_paths import named_paths
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.secrets import is_named_like_a_secret
from sftkey_dist.config.yaml_text import write_yaml
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import visible_files
from sftkey_dist.jobs.description import JOB_CONFIG, JobDescription

_MAX_BYTES = 100 * 2**20
_MAX_NAMED = 10
_NEVER = {".git", "__pycache__"}
_RULES_OF_RAY = {".gitignore", ".rayignore"}
"""Files by which Ray's client would leave out what was chosen here. The job needs none of them."""


@dataclass(frozen=True)
class Upload:
    """A folder to send.

    Attributes:
        folder: folder with the copies.
        left_out: names of the user's files that were not copied; a folder stands for all of its files.
    """

    folder: Path
    left_out: tuple[str, ...]

    def left_out_in_words(self) -> str:
        """The files that were left out, in one line; empty if there are none."""
        if not self.left_out:
            return ""
        more = len(self.left_out) - _MAX_NAMED
        names = ", ".join(self.left_out[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"left out, because neither git nor --include names them: {names}"


@contextmanager
def packed(job: JobDescription, folder: Path | None, include: Sequence[str] = ()) -> Iterator[Upload]:
    """Yield a folder with the merged configuration, and with copies from the user's folder if one is given.

    Args:
        job: what the job carries out.
        folder: the user's folder. From a git work tree, the files that git tracks are copied; from any other folder,
            Python files and the files that the job's configurations name.
        include: patterns of additional files. Without a git work tree, only these are copied.

    Raises:
        ConfigError: The run would write to a path that other nodes cannot read; the folder does not exist; a file
            cannot be copied or is a link to outside the folder; a pattern matches nothing; a file that a configuration
            names is not sent; or the folder is too large.
    """
    _require_shared_paths(job)
    text = write_yaml(job.content)
    sent, left_out = _choose(job.configs, folder, include) if folder is not None else ({}, [])
    _require_named_files(job.configs, folder, sent)
    _require_small(folder, sent, len(text.encode()))
    with tempfile.TemporaryDirectory(prefix="sftkey-job-") as scratch:
        target = Path(scratch) / "job"
        target.mkdir()
        for name, source in sent.items():
            if source.name not in _RULES_OF_RAY:
                _copy(source, target / name)
        (target / JOB_CONFIG).write_text(text, encoding="utf-8")
        yield Upload(target, tuple(left_out))


def _require_shared_paths(job: JobDescription) -> None:
    """Paths must be absolute: a job's working directory differs between nodes and is deleted when the job ends."""
    written = [each for config in job.configs for each in _written_paths(config)]
    for key, path in (("run_dir", job.run_dir), *written):
        if not path.is_absolute():
            raise ConfigError(
                f"{key}={path}: a job needs an absolute path on storage that all nodes share, such as "
                f"/mnt/shared/{path}"
            )


def _written_paths(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """The keys that say where a run writes, apart from its folder, and the paths that are set."""
    yield "data.store_dir", config.data.store_dir
    judge, tracking = config.evaluation.judge, config.tracking
    if judge is not None and judge.cache_dir is not None:
        yield "evaluation.judge.cache_dir", judge.cache_dir
    if "tensorboard" in tracking.also and tracking.tensorboard.folder is not None:
        yield "tracking.tensorboard.folder", tracking.tensorboard.folder
    if tracking.enabled and tracking.uri is not None and (path := _path_of_store(tracking.uri)) is not None:
        yield "tracking.uri", path


def _path_of_store(uri: str) -> Path | None:
    """The file of a tracking store; None if it is a server or another database."""
    scheme, _, rest = uri.partition("://")
    return Path(rest.removeprefix("/")) if scheme.startswith("sqlite") else None


def _require_named_files(configs: Sequence[RunConfig], folder: Path | None, sent: Mapping[str, Path]) -> None:
    """A relative path means files of the job's working directory, which holds what is sent and nothing else."""
    for path in sorted({path for config in configs for path in named_paths(config)}):
        named = _files_named(path, folder or Path()) or _files_named(path, Path())
        missing = sorted(named - sent.keys())
        if missing:
            where = f"--working-dir {folder}: {path}" if folder else path
            add = "add" if folder else "add --working-dir . and, if git does not track it,"
            raise ConfigError(
                f"{where}: the configuration names {missing[0]}, which is not sent with the job; {add} --include "
                f"{shlex.quote(_pattern_of(path, missing))}, or write an absolute path on storage that all nodes share"
            )


def _files_named(path: str, folder: Path) -> set[str]:
    """Names below a folder of the files that a setting names by a relative path, a pattern or a folder.

    Empty for absolute paths, and for models and data on a hub.
    """
    if os.path.isabs(path):
        return set()
    found = glob.glob(path, root_dir=folder, recursive=True) if "*" in path else [path]
    places = [folder / each for each in found]
    files = [file for place in places for file in (visible_files(place) if place.is_dir() else [place])]
    return {Path(os.path.relpath(file, folder)).as_posix() for file in files if file.is_file()}


def _pattern_of(path: str, missing: Sequence[str]) -> str:
    """A pattern of `--include` for files that a setting names; there, `*` also matches across folders."""
    if len(missing) == 1:
        return glob.escape(missing[0])
    return PurePosixPath(path).as_posix().replace("**/", "") if "*" in path else f"{PurePosixPath(path).as_posix()}/*"


def _choose(configs: Sequence[RunConfig], folder: Path, include: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """The files to copy, by their name below the folder, and the names of the others."""
    if not folder.is_dir():
        raise ConfigError(f"--working-dir {folder}: {'is not a' if folder.exists() else 'there is no such'} folder")
    try:
        tracked = _tracked(folder)
        found, closed = _walk(folder, with_hidden=any(_names_hidden(pattern) for pattern in include))
        chosen = set(tracked or ()) | _included(found, include)
        if tracked is None and not include:
            chosen = _named_or_python(configs, folder, found)
        files = {name: _file(folder, name, chosen) for name in sorted(chosen)}
    except OSError as error:
        raise ConfigError(f"--working-dir {folder}: {error.filename}: {error.strerror}") from error
    return files, [name for name in (*found, *closed) if not _covers(name, chosen)]


def _tracked(folder: Path) -> list[str] | None:
    """Existing files below a folder that git tracks; None if the folder is not in a git work tree."""
    try:
        listed = subprocess.run(["git", "-C", folder, "ls-files", "-z"], capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    # Submodules and links to folders are left out, because git tracks their files elsewhere or not at all.
    return [name for name in names if os.path.lexists(folder / name) and not (folder / name).is_dir()]


def _walk(folder: Path, *, with_hidden: bool) -> tuple[list[str], list[str]]:
    """Names of all files, and of hidden and linked folders, which are not searched."""
    found, closed = [], []
    for place, folders, files in os.walk(folder, onerror=_raise):
        inside = Path(place).relative_to(folder)
        shut = {name for name in folders if _is_not_searched(Path(place) / name, with_hidden=with_hidden)}
        found += [(inside / name).as_posix() for name in sorted(files)]
        closed += [f"{(inside / name).as_posix()}/" for name in sorted(shut)]
        folders[:] = sorted(set(folders) - shut - _NEVER)
    return found, closed


def _is_not_searched(folder: Path, *, with_hidden: bool) -> bool:
    is_hidden = folder.name.startswith(".") and not with_hidden
    return folder.name not in _NEVER and (is_hidden or folder.is_symlink())


def _included(found: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen = set()
    for pattern in patterns:
        matching = {name for name in found if _matches(name, pattern)}
        if not matching:
            raise ConfigError(f"--include {pattern!r}: matches no file below --working-dir")
        chosen |= matching
    return chosen


def _named_or_python(configs: Sequence[RunConfig], folder: Path, found: Sequence[str]) -> set[str]:
    paths = {path for config in configs for path in named_paths(config)}
    named = {name for path in paths for name in _files_named(path, folder)}
    python = {name for name in found if name.endswith(".py") and not is_named_like_a_secret(PurePosixPath(name).stem)}
    return {name for name in python if _matches(name, "*")} | (named & set(found))


def _matches(name: str, pattern: str) -> bool:
    """Match as a shell does: hidden names only if the pattern names them. However, `*` also matches across folders."""
    return fnmatch.fnmatchcase(name, pattern) and (not _names_hidden(name) or _names_hidden(pattern))


def _names_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _covers(name: str, chosen: set[str]) -> bool:
    """Whether a file, or any file of a folder, is sent."""
    return name in chosen or (name.endswith("/") and any(one.startswith(name) for one in chosen))


def _file(folder: Path, name: str, chosen: set[str]) -> Path:
    """The file to copy. A link is followed if its target is sent too.

    Raises:
        ConfigError: It is not a file, or is a link to something that is not sent.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # before Python 3.13 a link to itself raises RuntimeError
        raise ConfigError(f"--working-dir {folder}: {name}: is a broken link; remove it") from None
    if path.is_symlink() or real != folder.resolve() / name:
        if not real.is_relative_to(folder.resolve()):
            raise ConfigError(
                f"--working-dir {folder}: {name}: is a link to {real}, which is outside the folder; copy the file "
                f"into the folder instead"
            )
        if real.relative_to(folder.resolve()).as_posix() not in chosen:
            raise ConfigError(
                f"--working-dir {folder}: {name}: is a link to {real}, which is not sent; include "
                f"that file too, or remove the link"
            )
    if not stat.S_ISREG(real.stat().st_mode):
        raise ConfigError(f"--working-dir {folder}: {name}: is not a regular file, so it cannot be copied")
    return real


def _require_small(folder: Path | None, sent: dict[str, Path], num_bytes: int) -> None:
    sizes = {name: source.stat().st_size for name, source in sent.items()}
    size = sum(sizes.values()) + num_bytes
    if size > _MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name], default=JOB_CONFIG)
        raise ConfigError(
            f"--working-dir {folder}: {size / 2**20:.0f} MiB is more than the {_MAX_BYTES // 2**20} MiB that a job "
            f"may send; the largest file is {largest}; put data and models on storage that the cluster shares"
        )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    except OSError as error:
        raise ConfigError(f"--working-dir: {source}: cannot be copied ({error.strerror})") from error


def _raise(error: OSError) -> None:
    raise error
