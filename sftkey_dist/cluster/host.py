"""Starts a private Ray cluster on this machine for one command, which listens on loopback only and has its own token.

By default Ray listens on every interface, and uses one token for all clusters of a user. The cluster comes up in a
process of its own, while the command loads its libraries; therefore nothing here imports Ray.
"""

import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sftkey_dist.cluster.gate import named_cluster
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.machine import free_memory_bytes

BINDS_TO_ALL = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""If this variable is 0, Ray listens on loopback only, as it always does on Windows and macOS."""
_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # results pass through files; the object store carries small values only
_MIN_OPEN_FILES, _MAX_OPEN_FILES = 1024, 65536
_MAX_PATH_BYTES = 24
"""Maximum length of the parent folder's path. Ray appends up to 82 bytes, and the path of a socket has at most 107."""
_SECONDS_TO_END = 15.0
_MIN_GIB_OF_A_WORKER = 0.5
"""A process with torch, DeepSpeed and Ray, without a model."""


class ClusterHost:
    """A process that starts a private cluster, and holds it.

    Attributes:
        num_cpus: CPUs that the cluster offers.
        environment: variables that every process of the cluster has, and that a driver needs; None removes one.
    """

    def __init__(self, num_cpus: int, folder: Path) -> None:
        """Start the process.

        Args:
            num_cpus: CPUs that the cluster offers, if this machine has not more.
            folder: an empty folder with mode 0700, because files that Ray creates in it are readable by all.
        """
        self.num_cpus = max(os.cpu_count() or 1, num_cpus)
        self.environment = _environment(folder)
        self._log, self._address = folder / "log", ""
        script = Path(__file__).with_name("host_process.py")
        arguments = [os.getpid(), self.num_cpus, _OBJECT_STORE_BYTES, folder]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script), *map(str, arguments)],
                env={name: value for name, value in (os.environ | self.environment).items() if value is not None},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # A terminal, `timeout`, Slurm and Kubernetes signal whole groups. If such a signal reached Ray's
                # processes, no worker would be left to save a checkpoint.
                process_group=0,
            )

    def address(self) -> str:
        """Wait until the cluster is up, and return its ``host:port``.

        Raises:
            ConfigError: it does not start, or has died since.
        """
        if not self._address:
            assert self._process.stdout is not None  # noqa: S101 (for the type checker)
            self._address = self._process.stdout.readline().strip()
        if not self._address or self._process.poll() is not None:
            *_, reason = ["it wrote no message", *self._log.read_text(errors="replace").strip().splitlines()]
            raise not_started(reason)
        return self._address

    def end(self) -> None:
        """End the cluster, at once if it was not used."""
        try:
            if self._address:
                self._process.communicate(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


@contextmanager
def cluster_host(num_cpus: int) -> Iterator[ClusterHost]:
    """Start a private cluster without waiting for it, and end it with the block.

    Args:
        num_cpus: CPUs that the cluster offers, if this machine has not more.

    Raises:
        ConfigError: there is no usable folder for it.
    """
    _require_open_files()
    folder = _make_folder()
    try:
        host = ClusterHost(num_cpus, folder)
        try:
            yield host
        finally:
            host.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_ahead: list[ClusterHost] = []


@contextmanager
def starting_ahead(cluster: ClusterConfig, num_workers: int) -> Iterator[None]:
    """Start a private cluster that comes up while the block does what needs none. `host_ahead` returns it in the block.

    This does nothing if the configuration or the environment names a cluster. If something prevents the start, it is
    reported when a cluster is needed.

    Args:
        cluster: address of a cluster, and the resources of a worker.
        num_workers: maximum number of workers that run at the same time, in training or in evaluation.
    """
    with ExitStack() as stack:
        with suppress(ConfigError):
            if named_cluster(cluster) is None:
                require_memory(num_workers)
                host = stack.enter_context(cluster_host(num_workers * cluster.cpus_per_worker))
                _ahead.append(host)
                stack.callback(_ahead.remove, host)
        yield


def host_ahead(num_cpus: int) -> ClusterHost | None:
    """The host that an enclosing block has started, if its cluster has enough CPUs."""
    return next((host for host in _ahead if host.num_cpus >= num_cpus), None)


def not_started(reason: str) -> ConfigError:
    """The error that a cluster does not start, or has died before it was used."""
    return ConfigError(
        f"the private Ray cluster did not start ({' '.join(reason.split())[:200]}); check that this machine has free "
        f"memory and processors, and run the command again"
    )


def _environment(folder: Path) -> dict[str, str | None]:
    """Binds a cluster to loopback, and gives it a token and a folder for its files."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    scratch = folder / "t"  # a link to the user's temporary folder with a path short enough for sockets
    scratch.symlink_to(tempfile.gettempdir())
    return {
        BINDS_TO_ALL: "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": None,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": str(scratch),
    }


def require_memory(num_workers: int) -> None:
    """Check that workers fit into memory. They can share this machine's cores, but would exhaust its memory.

    Raises:
        ConfigError: they do not.
    """
    free, needed = free_memory_bytes() / 2**30, num_workers * _MIN_GIB_OF_A_WORKER
    if free and needed > free:
        raise ConfigError(
            f"{num_workers} workers need at least {needed:.0f} GiB of memory on this machine, which has {free:.1f} GiB "
            f"left and {os.cpu_count()} cores; lower cluster.num_workers and evaluation.num_workers, or name a cluster "
            f"with cluster.address"
        )


def _require_open_files() -> None:
    """Raise the limit of open files. Ray's processes open hundreds, and hang if the limit is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if most < _MIN_OPEN_FILES:
        raise ConfigError(
            f"a private Ray cluster opens more files than the {hard} that a process may have open here; raise the "
            f"limit to {_MIN_OPEN_FILES} or more (ulimit -n, or LimitNOFILE of the service)"
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _make_folder() -> Path:
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108 (mkdtemp creates a private folder)
    for place in places:
        if len(os.fsencode(place)) <= _MAX_PATH_BYTES and os.access(place, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="ray-", dir=place))
    raise ConfigError(
        f"a private Ray cluster needs a folder with a short path for its sockets, and none of {', '.join(places)} can "
        f"be used; set TMPDIR to a path of at most {_MAX_PATH_BYTES} characters"
    )
