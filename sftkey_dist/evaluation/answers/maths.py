"""Symbolic equality in a process of its own: an answer may hold an expression that takes forever to simplify.

math-verify's own time limit rests on signals, which work in a main thread only; a training rank's is another's.
"""

import atexit
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from typing import IO

_SECONDS_TO_START = 60.0
_SECONDS_TO_COMPARE = 5.0
_LONGEST_CHARACTERS = 1000


def same_expression(reference: str, answer: str) -> bool | None:
    """Whether two texts hold equal expressions; None when the reference holds none, or is too hard to tell."""
    if len(reference) > _LONGEST_CHARACTERS:
        return None
    return _process.ask(reference, answer[-_LONGEST_CHARACTERS:])


class _Process:
    """Started when first asked; started anew after a question that it did not answer in time."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[str] | None = None

    def ask(self, reference: str, answer: str) -> bool | None:
        process = self._running or self._start()
        stdin, stdout = _pipes(process)
        stdin.write(json.dumps([reference, answer]) + "\n")
        stdin.flush()
        if not _is_readable(stdout, _SECONDS_TO_COMPARE):
            self.stop()
            return None
        line = stdout.readline()
        if not line:  # it died, for want of memory for instance
            self.stop()
            return None
        outcome: bool | None = json.loads(line)
        return outcome

    def stop(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            for pipe in _pipes(self._running):
                with suppress(BrokenPipeError):
                    pipe.close()
            self._running = None

    def _start(self) -> subprocess.Popen[str]:
        self._running = subprocess.Popen(
            [sys.executable, "-m", "sftkey_dist.evaluation.answers.maths_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        _, stdout = _pipes(self._running)
        if not _is_readable(stdout, _SECONDS_TO_START) or stdout.readline().strip() != "ready":
            self.stop()
            raise RuntimeError("the process that compares expressions did not start; is math-verify installed?")
        return self._running


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    return process.stdin, process.stdout


def _is_readable(pipe: IO[str], seconds: float) -> bool:
    return bool(select.select([pipe], [], [], seconds)[0])


_process = _Process()
atexit.register(_process.stop)
