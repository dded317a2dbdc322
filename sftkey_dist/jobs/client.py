"""Client for Ray jobs: submits a configuration to a cluster, follows the log and stops the job."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from sftkey_dist.cluster.gate import NamedCluster
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ConfigError, TrainingError
from sftkey_dist.jobs.upload import Upload
from sftkey_dist.release import version

_MOST_QUOTED = 300
"""Characters of Ray's messages, which name paths and addresses."""
_JOB_ENVIRONMENT = {
    "COLUMNS": "120",
    "RAY_JOB_STOP_WAIT_TIME_S": "600",  # time for a stopped job to save a checkpoint before Ray kills it
}


class RayJobs:
    """The jobs of the cluster whose dashboard has the given address."""

    def __init__(self, address: str, *, allow_unauthenticated: bool = False) -> None:
        """
        Args:
            address: address of the dashboard, such as ``http://head:8265``.
            allow_unauthenticated: whether to connect to a remote cluster without a token.

        Raises:
            ConfigError: No cluster answers, it refuses the token, or the cluster is remote and there is no token.
        """
        self._address = address
        named = NamedCluster(address, "--address")
        named.require_no_credentials()
        if not allow_unauthenticated:
            named.require_token("give --allow-unauthenticated")
        try:
            self._client = JobSubmissionClient(address)
        except Exception as error:  # exceptions of aiohttp, requests or Ray
            said = in_a_line(error, _MOST_QUOTED)
            raise ConfigError(f"--address {address}: {said}; is it the dashboard's address?") from error
        logging.getLogger("ray").setLevel(logging.WARNING)  # the client's constructor lowers it

    def submit(self, upload: Upload, arguments: Sequence[str], *, with_package: bool) -> str:
        """Start ``sftkey ARGUMENTS`` with the upload as working directory, and return the job's id.

        Args:
            upload: see `packed`.
            arguments: see `JobDescription.arguments`.
            with_package: also send this version of the package, for clusters on which it is not installed.

        Raises:
            ConfigError: The cluster refuses the job.
        """
        modules = {"py_modules": [str(Path(__file__).parents[1])]} if with_package else {}
        try:
            job = self._client.submit_job(
                # With exec the command is Ray's own child. As the child of a shell that has ended, a stopped job would
                # seem to run for another ten minutes in a container whose first process does not reap others.
                entrypoint=" ".join(["exec python -m sftkey_dist", *arguments]),
                runtime_env={"working_dir": str(upload.folder), "env_vars": _JOB_ENVIRONMENT, **modules},
                metadata={"sftkey_version": version()},
            )
        except Exception as error:
            said = in_a_line(error, _MOST_QUOTED)
            raise ConfigError(f"--address {self._address}: the cluster refused the job: {said}") from error
        return str(job)

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Show a job's log until the job ends. Following can be interrupted and resumed.

        Raises:
            TrainingError: The job failed or was stopped.
        """
        asyncio.run(self._tail(job, show))
        status = self.status(job)
        if status == JobStatus.SUCCEEDED.value:
            return
        message = str(self._client.get_job_info(job).message or "no message")
        hint = ""
        if "No module named 'sftkey_dist'" in message:
            hint = "; the cluster's nodes lack the package: install it in their image, or give --with-package"
        own = message.partition(", last available logs")[0]  # the log has been shown already
        reason = in_a_line(own, _MOST_QUOTED)
        raise TrainingError(f"job {job} {status.lower()}: {reason}{hint}")

    def status(self, job: str) -> str:
        """The status of a job: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.

        Raises:
            ConfigError: There is no such job.
        """
        with self._known(job):
            return str(self._client.get_job_status(job).value)

    def log(self, job: str) -> str:
        """The whole log of a job.

        Raises:
            ConfigError: There is no such job.
        """
        with self._known(job):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> None:
        """Ask a job to stop; it has time to save a checkpoint.

        Raises:
            ConfigError: There is no such job.
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
            raise ConfigError(f"job {job}: {in_a_line(error, _MOST_QUOTED)}") from error
