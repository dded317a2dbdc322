"""A private Ray cluster on this machine for one command, which listens on loopback only and has its own token.

By default Ray listens on every interface, and uses one token for all clusters of a user.
"""

import logging
import os
import resource
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ray
from ray._private import ray_constants, services
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from sftkey_dist.errors import ConfigError

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # results pass through files; the object store carries small values only
_LEAST_OPEN_FILES = 1024
_MOST_PATH_BYTES = 24
"""Maximum length of the parent folder's path. Ray appends up to 82 bytes, and the path of a socket has at most 107."""


@contextmanager
def private_cluster(num_cpus: int) -> Iterator[None]:
    """Start a private cluster, and stop it at the end of the block.

    Raises:
        ConfigError: there is no usable folder for it, or it does not start.
    """
    _require_open_files()
    folder = _make_folder()  # mode 0700, because files that Ray creates in it are readable by all
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    scratch = folder / "t"  # a link to the user's temporary folder with a path short enough for sockets
    scratch.symlink_to(tempfile.gettempdir())
    try:
        with _on_loopback(), _behind(token), _environment({"TMPDIR": str(scratch)}):
            with _out_of_reach_of_signals(), _without_unused_processes():
                _start(num_cpus, folder / "r")
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_open_files() -> None:
    """Raise the limit of open files. Ray's processes open hundreds, and hang if the limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _LEAST_OPEN_FILES:
        if hard < _LEAST_OPEN_FILES:
            raise ConfigError(
                f"a private Ray cluster opens more files than the {hard} that a process may have open here; raise the "
                f"limit to {_LEAST_OPEN_FILES} or more (ulimit -n, or LimitNOFILE of the service)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (_LEAST_OPEN_FILES, hard))


def _start(num_cpus: int, folder: Path) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, num_cpus),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )
    except Exception as error:  # Ray raises a plain Exception if one of its processes does not start in time
        raise ConfigError(
            f"the private Ray cluster did not start ({' '.join(str(error).split())[:200]}); check that this machine "
            f"has free memory and processors, and run the command again"
        ) from error


def _make_folder() -> Path:
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108 (mkdtemp creates a private folder)
    for place in places:
        if len(os.fsencode(place)) <= _MOST_PATH_BYTES and os.access(place, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="ray-", dir=place))
    raise ConfigError(
        f"a private Ray cluster needs a folder with a short path for its sockets, and none of {', '.join(places)} can "
        f"be used; set TMPDIR to a path of at most {_MOST_PATH_BYTES} characters"
    )


@contextmanager
def _out_of_reach_of_signals() -> Iterator[None]:
    """Start Ray's processes in their own process group, so that a signal to the command's group does not reach them.

    A terminal, `timeout`, Slurm and Kubernetes signal whole groups, and without workers nothing could be saved. Ray's
    processes still exit with the command, because Ray asks the kernel to signal them when it dies.
    """
    before = services.ConsolePopen
    services.ConsolePopen = partial(before, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = before


@contextmanager
def _without_unused_processes() -> Iterator[None]:
    """Start Ray without processes that are of no use to a single command, and take seconds to start.

    They are the dashboard's server, which runs even without a dashboard, the autoscaler, and the one that sends logs to
    a driver that does not print them. Ray has no setting for this.
    """
    unused = ("start_api_server", "start_monitor", "start_log_monitor")
    before = {name: getattr(Node, name) for name in unused}
    for name in unused:
        setattr(Node, name, lambda self, **settings: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Bind Ray to loopback with its own switch for single-machine clusters. Children read it from the environment."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _behind(token: Path) -> Iterator[None]:
    """Require this token, regardless of the mode and token in the environment."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": str(token)}
    with _environment(ours):
        _read_authentication_again()
        yield
    _read_authentication_again()


def _read_authentication_again() -> None:
    """Make Ray read its settings again, since it caches what it has read from the environment."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _environment(changes: dict[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
