"""Ray jobs: send a configuration to a cluster, follow its log, stop it."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from sftkey_dist.cluster_gate import NamedCluster
from sftkey_dist.config.secrets import without_credentials
from sftkey_dist.errors import ConfigError, TrainingError
from sftkey_dist.jobs.upload import JOB_CONFIG, Upload
from sftkey_dist.release import version

_JOB_ENVIRONMENT = {
    "COLUMNS": "120",
    "RAY_JOB_STOP_WAIT_TIME_S": "600",  # before Ray kills a job that was stopped: it saves a checkpoint first
}


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
        named = NamedCluster(address, "--address")
        named.require_no_credentials()
        if not allow_unauthenticated:
            named.require_token("give --allow-unauthenticated")
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
        modules = {"py_modules": [str(Path(__file__).parents[1])]} if with_package else {}
        try:
            job = self._client.submit_job(
                entrypoint=" ".join(["python -m sftkey_dist.cli", *arguments]),
                runtime_env={"working_dir": str(upload.folder), "env_vars": _JOB_ENVIRONMENT, **modules},
                metadata={"sftkey_version": version()},
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


def job_arguments(verb: str, *, allow_unauthenticated: bool) -> list[str]:
    """How a job calls the command line: on the cluster that it runs in."""
    allowance = ["cluster.allow_unauthenticated=true"] if allow_unauthenticated else []
    return [verb, JOB_CONFIG, "cluster.address=auto", *allowance]


def _in_a_line(error: object) -> str:
    return without_credentials(" ".join(str(error).split()))[:300]
