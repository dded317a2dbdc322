"""Jobs on a Ray cluster: what they carry out, which files are sent, and how a job is started, followed and stopped."""
