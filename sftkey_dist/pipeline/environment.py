"""The environment of a run: versions, commit, machine."""

import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from sftkey_dist.release import version

_PACKAGES = ("torch", "deepspeed", "ray", "transformers", "datasets", "mlflow", "mpmath")


def describe_environment() -> dict[str, str]:
    """Names and values of the environment's properties."""
    commit = git_commit()
    return {
        "sftkey_dist": version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        **({"CUDA of torch": torch.version.cuda} if torch.version.cuda else {}),
        **({"NCCL of torch": ".".join(map(str, torch.cuda.nccl.version()))} if torch.cuda.is_available() else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores of the driver": str(os.cpu_count()),
        **({"processor": processor} if (processor := _processor()) else {}),
        **({"git commit": commit} if commit else {}),
    }


def _processor() -> str | None:
    """Name of the processor, if Linux reports it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None


def git_commit() -> str | None:
    """The commit of the folder in which the command runs; None outside a repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
