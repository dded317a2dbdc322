"""A real `mlflow server` on loopback over SQLite or PostgreSQL, started and ended by tests."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.distributed.harness import free_port

WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""It would start six more processes, for scorers that nobody uses here."""
POSTGRES = shutil.which("initdb") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)


class MlflowServer:
    """Can be killed and started again where it was."""

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = store or f"sqlite:///{folder / 'server.db'}"
        self._arguments, self._environment = arguments, environment or {}
        self._port = free_port()
        self._process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        stores = ["--backend-store-uri", self._store, "--artifacts-destination", str(self._folder / "artifacts")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | WITHOUT_JOBS
        environment |= self._environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *stores, *self._arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while not self._is_healthy():
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """With its workers, which are in its session."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False


@contextmanager
def mlflow_server(folder: Path, store: str | None = None, **more: Any) -> Iterator[MlflowServer]:
    server = MlflowServer(folder, store, **more)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL cluster of its own on loopback; root may not run one, so then `nobody` does."""
    binaries, port = Path(POSTGRES).resolve().parent, free_port()
    data = folder / "data"
    data.mkdir(parents=True)
    as_user = {}
    if os.geteuid() == 0:
        for place in (data, *data.parents):
            if place.owner() == "root" and place != Path("/"):
                place.chmod(0o755 if place != data else 0o700)
        shutil.chown(data, "nobody")
        as_user = {"user": "nobody"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **as_user}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "mlflow", "-A", "trust"], check=True, **quiet)
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}", "-p", str(port)]
    process = subprocess.Popen([binaries / "postgres", "-D", data, *settings], **quiet)
    try:
        ready = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, **quiet).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait()
