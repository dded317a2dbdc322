"""Client for Ray jobs: submits a configuration to a cluster, follows the log and stops the job."""

import asyncio
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from sftkey_dist.cluster.gate import NamedCluster
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ConfigError, TrainingError
from sftkey_dist.jobs.upload import Upload
from sftkey_dist.release import version

_MAX_QUOTED = 300
"""Characters of Ray's messages, which name paths and addresses."""
_ATTEMPTS, _SECONDS_BETWEEN_ATTEMPTS = 10, 3.0
"""How often a connection that is lost is made again without receiving anything new."""
_SECONDS_OF_A_CONNECTION = 10.0
"""A connection that lasted longer had worked: gateways close connections that are silent for about a minute."""
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
        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"--address {address}: give the dashboard's address, such as http://{address}")
        if not allow_unauthenticated:
            named.require_token("give --allow-unauthenticated")
        try:
            self._client = JobSubmissionClient(address)
        except Exception as error:  # exceptions of aiohttp, requests or Ray
            said = in_a_line(error, _MAX_QUOTED)
            raise ConfigError(f"--address {address}: {said}; is it the dashboard's address?") from error
        logging.getLogger("ray").setLevel(logging.WARNING)  # the client's constructor lowers it

    def submit(self, identifier: str, upload: Upload, arguments: Sequence[str], *, with_package: bool) -> None:
        """Start ``sftkey ARGUMENTS`` with the upload as working directory.

        Args:
            identifier: id of the job, which no other job of the cluster has.
            upload: see `packed`.
            arguments: see `JobDescription.arguments`.
            with_package: also send this version of the package, for clusters on which it is not installed.

        Raises:
            ConfigError: The cluster refuses the job.
        """
        modules = {"py_modules": [str(Path(__file__).parents[1])]} if with_package else {}
        try:
            self._client.submit_job(
                submission_id=identifier,
                # With exec the command is Ray's own child. As the child of a shell that has ended, a stopped job would
                # seem to run for another ten minutes in a container whose first process does not reap others.
                entrypoint=" ".join(["exec python -m sftkey_dist", *arguments]),
                runtime_env={"working_dir": str(upload.folder), "env_vars": _JOB_ENVIRONMENT, **modules},
                metadata={"sftkey_version": version()},
            )
        except Exception as error:
            said = in_a_line(error, _MAX_QUOTED)
            raise ConfigError(f"--address {self._address}: the cluster refused the job: {said}") from error

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Show a job's log until the job ends. Following can be interrupted and resumed.

        Raises:
            ConfigError: There is no such job, or the connection is lost and cannot be made again.
            TrainingError: The job failed or was stopped.
        """
        self.status(job)
        status = self._followed_to_the_end(job, _Log(show))
        if status is JobStatus.SUCCEEDED:
            return
        with self._known(job):
            message = str(self._client.get_job_info(job).message or "no message")
        hint = ""
        if "No module named 'sftkey_dist'" in message:
            hint = "; the cluster's nodes lack the package: install it in their image, or give --with-package"
        own = message.partition(", last available logs")[0]  # the log has been shown already
        reason = in_a_line(own, _MAX_QUOTED)
        raise TrainingError(f"job {job} {status.value.lower()}: {reason}{hint}")

    def _followed_to_the_end(self, job: str, log: "_Log") -> JobStatus:
        """The status of a job that has ended. A lost connection is made again while the cluster answers."""
        attempts_left, problem = _ATTEMPTS, ""
        while attempts_left:
            if problem:
                time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
            num_shown, connected = log.num_shown, time.monotonic()
            try:
                asyncio.run(self._tail(job, log))
                status = self._client.get_job_status(job)
                if status.is_terminal():
                    return status
                problem = "the log ended before the job"
            except Exception as error:  # exceptions of aiohttp, requests or Ray
                problem = in_a_line(error, _MAX_QUOTED)
            is_long = time.monotonic() - connected > _SECONDS_OF_A_CONNECTION
            worked = log.num_shown > num_shown or (is_long and self._answers(job))
            attempts_left = _ATTEMPTS if worked else attempts_left - 1
        raise ConfigError(
            f"job {job}: its log cannot be followed any more ({problem}), but the job may go on; sftkey job logs "
            f"--follow {job} --address {shlex.quote(self._address)} shows its log once the cluster answers"
        )

    def _answers(self, job: str) -> bool:
        try:
            self._client.get_job_status(job)
        except Exception:  # exceptions of requests or Ray
            return False
        return True

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

    async def _tail(self, job: str, log: "_Log") -> None:
        log.begin()
        async for lines in self._client.tail_job_logs(job):
            log.receive(lines)

    @contextmanager
    def _known(self, job: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # exceptions of aiohttp, requests or Ray
            raise ConfigError(f"job {job}: {in_a_line(error, _MAX_QUOTED)}") from error


class _Log:
    """Shows each character of a log once, although every connection receives the log from its beginning."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.num_shown, self._num_received, self._show = 0, 0, show

    def begin(self) -> None:
        """A connection has been made."""
        self._num_received = 0

    def receive(self, text: str) -> None:
        """Show what is new of the next part of the log."""
        new = text[max(0, self.num_shown - self._num_received) :]
        self._num_received += len(text)
        if new:
            self.num_shown = self._num_received
            self._show(new)
