"""Run directories as they are named beside each other."""

import os
from collections.abc import Sequence
from pathlib import Path


def distinct_runs(run_dirs: Sequence[Path]) -> list[Path]:
    """The run directories as absolute paths, each once."""
    return list(dict.fromkeys(Path(os.path.normpath(run_dir.absolute())) for run_dir in run_dirs))


def names_of_runs(run_dirs: Sequence[Path]) -> list[str]:
    """The last part of each run directory's path, or as many parts as tell the directories apart.

    Args:
        run_dirs: distinct paths.
    """
    parts = [Path(os.path.normpath(run_dir.absolute())).parts for run_dir in run_dirs]
    shortest = next(n for n in range(1, 1000) if len({of[-n:] for of in parts}) == len(parts))
    return ["/".join(of[-shortest:]) for of in parts]
