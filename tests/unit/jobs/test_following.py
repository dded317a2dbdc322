"""Following the log of a job over connections that are lost."""

from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from sftkey_dist.errors import ConfigError, TrainingError
from sftkey_dist.jobs import client
from sftkey_dist.jobs.client import RayJobs


class Dashboard:
    """Each connection sends the log from its beginning, as Ray's does, and then ends as it is told."""

    def __init__(self, *connections: tuple[list[str], Exception | None], status: JobStatus) -> None:
        self._connections, self._status = list(connections), status

    async def tail_job_logs(self, job):
        texts, end = self._connections.pop(0)
        for text in texts:
            yield text
        if end is not None:
            raise end

    def get_job_status(self, job):
        if isinstance(self._status, Exception):
            raise self._status
        return JobStatus.RUNNING if self._connections else self._status

    def get_job_info(self, job):
        return SimpleNamespace(message="Driver failed")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(client, "_SECONDS_BETWEEN_ATTEMPTS", 0.0)


def jobs_of(dashboard: object) -> RayJobs:
    jobs = RayJobs.__new__(RayJobs)
    jobs._address, jobs._client = "http://head:8265", dashboard
    return jobs


BROKEN = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


def test_a_connection_that_is_lost_is_made_again_and_every_line_is_shown_once():
    shown: list[str] = []
    dashboard = Dashboard(
        (["one\n", "tw"], BROKEN),
        ([], OSError("refused")),
        (["one\ntwo\n"], None),  # closed in good order while the job runs
        (["one\n", "two\nthree\n"], None),
        status=JobStatus.SUCCEEDED,
    )
    jobs_of(dashboard).follow("job", shown.append)
    assert "".join(shown) == "one\ntwo\nthree\n"


def test_silent_connections_that_a_gateway_closes_again_and_again_are_made_again(monkeypatch):
    silent = [([], BROKEN)] * 30
    with pytest.raises(ConfigError, match="cannot be followed any more"):
        jobs_of(Dashboard(*silent, (["done\n"], None), status=JobStatus.SUCCEEDED)).follow("job", print)
    monkeypatch.setattr(client, "_SECONDS_OF_A_CONNECTION", -1.0)
    shown: list[str] = []
    jobs_of(Dashboard(*silent, (["done\n"], None), status=JobStatus.SUCCEEDED)).follow("job", shown.append)
    assert shown == ["done\n"]
    lost = Dashboard(*[([], BROKEN)] * 30, status=JobStatus.RUNNING)
    answers = iter([JobStatus.RUNNING])
    lost.get_job_status = lambda job: next(answers)  # then it raises
    with pytest.raises(ConfigError, match="cannot be followed any more"):
        jobs_of(lost).follow("job", print)


def test_a_job_that_fails_after_that_is_an_error_with_its_reason():
    with pytest.raises(TrainingError, match="job x failed: Driver failed"):
        jobs_of(Dashboard(([], BROKEN), (["end"], None), status=JobStatus.FAILED)).follow("x", lambda text: None)


def test_a_cluster_that_does_not_come_back_is_no_failure_of_the_job():
    lost = Dashboard(*[([], BROKEN)] * 30, status=JobStatus.RUNNING)
    with pytest.raises(ConfigError, match=r"close code 1006\), but the job may go on; sftkey job logs --follow x --ad"):
        jobs_of(lost).follow("x", lambda text: None)


def test_a_job_that_is_not_there_is_an_error_before_anything_is_followed():
    with pytest.raises(ConfigError, match="job typo: Request failed with status code 404"):
        jobs_of(Dashboard(status=RuntimeError("Request failed with status code 404"))).follow("typo", print)
