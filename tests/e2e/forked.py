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
    multiprocessing.set_forkserver_preload(PRELOADED)
    process = multiprocessing.get_context("forkserver").Process(
        target=_serve, args=(tuple(arguments), folder, dict(environment), *files)
    )
    process.start()
    process.join(timeout_seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired(arguments, timeout_seconds, *(file.read_bytes() for file in files))
    return subprocess.CompletedProcess(arguments, process.exitcode, *(file.read_text() for file in files))


def _serve(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for file, descriptor in ((out, 1), (err, 2)):
        with file.open("wb") as written:
            os.dup2(written.fileno(), descriptor)
    for each in (console, errors):
        each.width = int(environment["COLUMNS"])  # they have read the server's environment
    sys.argv = ["sftkey", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves this out
