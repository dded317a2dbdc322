"""How trackers quote the errors of others."""

from sftkey_dist.config.secrets import without_credentials


def in_a_line(error: Exception) -> str:
    """The message of an error on one line, shortened and without credentials."""
    return without_credentials(" ".join(str(error).split()))[:200]
