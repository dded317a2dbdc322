"""Ray jobs: send a configuration to a cluster, follow its log, stop it.

What travels is the merged configuration, and a folder if one is named; never a secret: files that look like one are
left out, and the environment stays here.
"""

import asyncio
import fnmatch
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ray.job_submission import JobStatus, JobSubmissionClient

import sftkey_dist
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.config.yaml_text import write_yaml
from sftkey_dist.errors import ConfigError, TrainingError

_CONFIG = "sftkey-job.yaml"
_JOB_ENVIRONMENT = {
    "COLUMNS": "120",
    "RAY_JOB_STOP_WAIT_TIME_S": "600",  # before Ray kills a job that was stopped: it saves a checkpoint first
}
_MOST_BYTES = 100 * 2**20
_LEFT_OUT = (".git", ".venv", "__pycache__", "*.pyc", "runs", "mlruns", "mlartifacts", "node_modules")
_SECRET = (
    ".env",
    "*.env",
    ".netrc",
    "*.pem",
    "*.key",
    "*.p12",
    "id_rsa*",
    "id_ed25519*",
    "*token",
    "*token.*",
    "*secret*",
    "*credential*",
)


@dataclass(frozen=True)
class Upload:
    """A folder to send, and what of the user's was left out of it because it looks like a secret."""

    folder: Path
    secrets_left_out: tuple[str, ...]


class RayJobs:
    """The jobs of a cluster, by the address of its dashboard."""

    def __init__(self, address: str, *, allow_unauthenticated: bool = False) -> None:
        """
        Args:
            address: such as ``http://head:8265``.
            allow_unauthenticated: speak to a remote cluster without a token.

        Raises:
            ConfigError: no cluster answers, it refuses the token, or a remote one would be spoken to without.
        """
        self._address = address
        if not (allow_unauthenticated or is_loopback(address) or os.environ.get("RAY_AUTH_MODE") == "token"):
            raise ConfigError(
                f"--address {address}: whoever reaches a Ray cluster can run anything on it; set RAY_AUTH_MODE=token "
                f"and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), here and on the cluster, or give --allow-unauthenticated"
            )
        try:
            self._client = JobSubmissionClient(address)
        except Exception as error:  # aiohttp's, requests' and Ray's own, by what is wrong
            raise ConfigError(f"--address {address}: {_in_a_line(error)}; is it the dashboard's address?") from error
        logging.getLogger("ray").setLevel(logging.WARNING)  # the client's constructor sets it otherwise

    def submit(self, upload: Upload, arguments: Sequence[str], *, with_package: bool) -> str:
        """Start ``sftkey ARGUMENTS`` with the upload as working directory; returns the job's id.

        Args:
            upload: see `packed`.
            arguments: after `sftkey`; the merged configuration is `sftkey-job.yaml`.
            with_package: send this version of the package too, for clusters whose nodes lack it.

        Raises:
            ConfigError: the cluster does not take it.
        """
        modules = {"py_modules": [str(Path(sftkey_dist.__file__).parent)]} if with_package else {}
        try:
            job = self._client.submit_job(
                entrypoint=" ".join(["python -m sftkey_dist.cli", *arguments]),
                runtime_env={"working_dir": str(upload.folder), "env_vars": _JOB_ENVIRONMENT, **modules},
                metadata={"sftkey_version": sftkey_dist.version()},
            )
        except Exception as error:
            raise ConfigError(f"--address {self._address}: the job was not taken: {_in_a_line(error)}") from error
        return str(job)

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Show a job's log until it ends; one that follows may go away and come back.

        Raises:
            TrainingError: the job did not end well.
        """
        asyncio.run(self._tail(job, show))
        status = self.status(job)
        if status == JobStatus.SUCCEEDED.value:
            return
        message = str(self._client.get_job_info(job).message or "no message")
        hint = ""
        if "No module named 'sftkey_dist'" in message:
            hint = "; the cluster's nodes lack the package: install it in their image, or give --with-package"
        reason = _in_a_line(message.partition(", last available logs")[0])  # the log was shown as it came
        raise TrainingError(f"job {job} {status.lower()}: {reason}{hint}")

    def status(self, job: str) -> str:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.

        Raises:
            ConfigError: there is no such job.
        """
        with self._known(job):
            return str(self._client.get_job_status(job).value)

    def log(self, job: str) -> str:
        """All that the job has written.

        Raises:
            ConfigError: there is no such job.
        """
        with self._known(job):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> None:
        """Ask a job to end; it has time to.

        Raises:
            ConfigError: there is no such job.
        """
        with self._known(job):
            self._client.stop_job(job)

    async def _tail(self, job: str, show: Callable[[str], None]) -> None:
        async for lines in self._client.tail_job_logs(job):
            show(lines)

    @contextmanager
    def _known(self, job: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ConfigError(f"job {job}: {_in_a_line(error)}") from error


@contextmanager
def packed(config: RunConfig, folder: Path | None) -> Iterator[Upload]:
    """A folder with the merged configuration, and a copy of the user's folder if one is named.

    Raises:
        ConfigError: it is too large, or the run would write where no other node can read.
    """
    _require_shared_paths(config)
    with tempfile.TemporaryDirectory(prefix="sftkey-job-") as scratch:
        target, left_out = Path(scratch) / "job", list[str]()
        if folder is None:
            target.mkdir()
        else:
            shutil.copytree(folder, target, ignore=_ignore(left_out), symlinks=False)
        (target / _CONFIG).write_text(write_yaml(config.model_dump(mode="json")), encoding="utf-8")
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
        if size > _MOST_BYTES:
            raise ConfigError(
                f"--working-dir {folder}: {size / 2**20:.0f} MiB is more than the {_MOST_BYTES // 2**20} MiB that a "
                f"job may carry; put data and models on storage that the cluster shares"
            )
        yield Upload(target, tuple(left_out))


def job_arguments(verb: str) -> list[str]:
    """How a job calls the command line: on the cluster that it runs in."""
    return [verb, _CONFIG, "cluster.address=auto"]


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _require_shared_paths(config: RunConfig) -> None:
    """A job's working directory is gone when it ends, and is another on each node."""
    for key, path in (("run_dir", config.run_dir), ("data.store_dir", config.data.store_dir)):
        if not path.is_absolute():
            raise ConfigError(
                f"{key}={path}: a job needs an absolute path on storage that all nodes share, such as "
                f"/mnt/shared/{path}"
            )


def _ignore(left_out: list[str]) -> Callable[[str, list[str]], set[str]]:
    def ignore(folder: str, names: list[str]) -> set[str]:
        secrets = {name for name in names if any(fnmatch.fnmatch(name.lower(), pattern) for pattern in _SECRET)}
        left_out.extend(str(Path(folder) / name) for name in sorted(secrets))
        return secrets | {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in _LEFT_OUT)}

    return ignore


def _in_a_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
