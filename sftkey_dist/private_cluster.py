"""A Ray cluster of this machine, for one command: on loopback alone, behind a token of its own.

By default Ray listens on every interface, and takes the token that all clusters of a user share.
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
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from sftkey_dist.errors import ConfigError

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # results pass through files; the object store carries small values only
_LEAST_OPEN_FILES = 1024
_MOST_PATH_BYTES = 24
"""Of a folder for the cluster's: Ray appends up to 82 bytes for its sockets, whose paths take 107."""


@contextmanager
def private_cluster(num_cpus: int) -> Iterator[None]:
    """Start one, and end it with the block.

    Raises:
        ConfigError: there is no folder for it, or it does not start.
    """
    _require_open_files()
    folder = _make_folder()  # 0700: what Ray makes in it is open to all
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    scratch = folder / "t"  # the user's own place for temporary files, by a name short enough for sockets in it
    scratch.symlink_to(tempfile.gettempdir())
    try:
        with _on_loopback(), _behind(token), _environment({"TMPDIR": str(scratch)}):
            with _out_of_reach_of_signals():
                _start(num_cpus, folder / "r")
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_open_files() -> None:
    """Ray's processes open hundreds, and with too few wait for one another in vain."""
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
            include_dashboard=False,  # a dozen processes, which nobody of a command would look at
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )
    except Exception as error:  # Ray raises this very class where a process of it does not come up in time
        raise ConfigError(
            f"the private Ray cluster did not start ({' '.join(str(error).split())[:200]}); see whether this machine "
            f"has memory and processors to spare, and run the command again"
        ) from error


def _make_folder() -> Path:
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108 (mkdtemp makes it private)
    for place in places:
        if len(os.fsencode(place)) <= _MOST_PATH_BYTES and os.access(place, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="ray-", dir=place))
    raise ConfigError(
        f"a private Ray cluster needs a folder with a short path for its sockets, and none of {', '.join(places)} can "
        f"be used; set TMPDIR to one of at most {_MOST_PATH_BYTES} characters"
    )


@contextmanager
def _out_of_reach_of_signals() -> Iterator[None]:
    """Ray's processes form a group of their own: a signal to the command's group must leave them to the command.

    A terminal, `timeout`, Slurm and Kubernetes end whole groups; without workers nothing could be saved. They end with
    the command, however it ends (Ray has the kernel see to that).
    """
    before = services.ConsolePopen
    services.ConsolePopen = partial(before, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = before


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's own switch for systems whose firewall asks about every port; children read it from the environment."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _behind(token: Path) -> Iterator[None]:
    """Whatever mode and token the environment has."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": str(token)}
    with _environment(ours):
        _read_authentication_again()
        yield
    _read_authentication_again()


def _read_authentication_again() -> None:
    """Ray keeps what it has once read of the environment."""
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
