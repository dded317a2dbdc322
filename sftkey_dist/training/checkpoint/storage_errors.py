"""Which errors of a file system may pass."""

import errno

from sftkey_dist.errors import StorageError

_MAY_PASS = frozenset(
    {errno.ESTALE, errno.ETIMEDOUT, errno.EIO, errno.EAGAIN, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH}
)
"""What a network file system reports while its server is away or fails over; a full disk is none of them."""


def may_pass(error: BaseException | None) -> bool:
    """Whether a later attempt may succeed though nobody corrects anything."""
    return isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in _MAY_PASS)
