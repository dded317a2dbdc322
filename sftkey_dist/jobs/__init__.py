"""Jobs on a Ray cluster: which files are sent, and how a job is started, followed and stopped."""

from sftkey_dist.jobs.client import RayJobs, job_arguments
from sftkey_dist.jobs.upload import Upload, packed

__all__ = ["RayJobs", "Upload", "job_arguments", "packed"]
