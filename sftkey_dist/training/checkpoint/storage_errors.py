"""Which errors of a file system are transient."""

import errno

from sftkey_dist.errors import StorageError

_TRANSIENT = frozenset(
    {errno.ESTALE, errno.ETIMEDOUT, errno.EIO, errno.EAGAIN, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH}
)
"""What a network file system reports while its server is away or fails over; a full disk is none of them."""


def is_transient(error: BaseException | None) -> bool:
    """Whether a later attempt may succeed though nobody corrects anything."""
    return isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in _TRANSIENT)
