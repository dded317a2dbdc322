"""Jobs on a Ray cluster: which files are sent, and how a job is started, followed and stopped."""

from sftkey_dist.jobs.client import RayJobs
from sftkey_dist.jobs.description import JobDescription
from sftkey_dist.jobs.upload import Upload, packed

__all__ = ["JobDescription", "RayJobs", "Upload", "packed"]
