"""The command line in processes that are forked from a server: it has imported what commands need, which takes 6 s."""

import atexit
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sftkey_dist.cli import main
from sftkey_dist.console import console, errors
from tests.distributed.harness import PRELOADED


class ForkedCommand:
    """`sftkey` with arguments in a folder and an environment, in a session of its own, as `subprocess.Popen` has it."""

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path | None = None,
    ) -> None:
        """
        Args:
            arguments: what follows `sftkey`.
            folder: working directory.
            environment: its environment variables, all of them.
            stdout: file for what it writes.
            stderr: file for its errors; None for the same.
        """
        multiprocessing.set_forkserver_preload(PRELOADED)
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_serve, args=(tuple(map(str, arguments)), folder, dict(environment), stdout, stderr)
        )
        self._process.start()
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status when it has ended.

        Raises:
            TimeoutExpired: it has not ended after so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("sftkey", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def run_forked(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], outputs: Path, timeout_seconds: float
) -> "subprocess.CompletedProcess[str]":
    """Run `sftkey` with arguments in a folder and an environment, as `subprocess.run` would.

    Args:
        arguments: what follows `sftkey`.
        folder: working directory.
        environment: its environment variables, all of them.
        outputs: folder for two files with what it writes.
        timeout_seconds: when it is killed.

    Raises:
        TimeoutExpired: it took longer.
    """
    files = [outputs / "stdout", outputs / "stderr"]
    command = ForkedCommand(arguments, folder, environment, *files)
    try:
        status = command.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        command.kill()
        command.wait()
        raise subprocess.TimeoutExpired(arguments, timeout_seconds, *(file.read_bytes() for file in files)) from None
    return subprocess.CompletedProcess(arguments, status, *(file.read_text() for file in files))


def _serve(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdout: Path, stderr: Path | None
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for file, descriptors in ((stdout, (1, 2)), (stderr, (2,))):
        if file is not None:
            with file.open("wb") as written:
                for descriptor in descriptors:
                    os.dup2(written.fileno(), descriptor)
    for each in (console, errors):
        each.width = int(environment["COLUMNS"])  # they have read the server's environment
    sys.argv = ["sftkey", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves this out
