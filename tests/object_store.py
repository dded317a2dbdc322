"""A real S3-compatible server, in a process of its own, started and ended by tests."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow.fs import FileSystem

from tests.distributed.harness import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
"""What a process needs in its environment to use it."""


class ObjectStore:
    """Can be away for a while, with connections open that nothing answers."""

    def __init__(self, address: str, process: subprocess.Popen) -> None:
        self._address, self._process = address, process

    def uri(self, path: str) -> str:
        """Of a folder in its bucket, with what it takes to reach it."""
        options = f"scheme=http&endpoint_override={self._address}&region=us-east-1&allow_bucket_creation=true"
        return f"s3://runs{path and '/'}{path}?{options}"

    def be_away(self, seconds: float) -> None:
        """Return when it answers again."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def object_store(host: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """Run one with an empty bucket while the block lasts; this process must have `KEYS` in its environment."""
    assert os.environ.keys() >= KEYS.keys()
    address = f"{host}:{free_port()}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", host, "-p", address.rpartition(":")[2]], **quiet
    )
    try:
        deadline = time.monotonic() + 60
        while not _answers(address):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        store = ObjectStore(address, server)
        filesystem, path = FileSystem.from_uri(store.uri(""))
        filesystem.create_dir(path)
        yield store
    finally:
        server.kill()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=2):
            return True
    except OSError:
        return False
