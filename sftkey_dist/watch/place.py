"""Whether a folder is a run, and which folder may be meant if it is none."""

from pathlib import Path

from sftkey_dist.errors import ConfigError
from sftkey_dist.run_dir import RunDir
from sftkey_dist.suggestion import closest_name

_MAX_NAMED = 3


def require_run(path: Path) -> None:
    """
    Raises:
        ConfigError: there is no run; the message names one that may be meant.
    """
    if _is_run(path):
        return
    if inside := [run for run in sorted([*path.glob("*"), *path.glob("*/*")]) if _is_run(run)]:
        named = ", ".join(map(str, inside[:_MAX_NAMED])) + (", …" if len(inside) > _MAX_NAMED else "")
        raise ConfigError(f"{path}: not the folder of a run, but there are runs in it; choose one: {named}")
    beside = [run.name for run in sorted(path.absolute().parent.glob("*")) if _is_run(run)]
    close = closest_name(path.name, beside)
    hint = f"did you mean {path.parent / close}?" if close else "give the run_dir of a run that has begun"
    raise ConfigError(f"{path}: no run there; {hint}")


def _is_run(path: Path) -> bool:
    run = RunDir(path)
    return any(file.is_file() for file in (run.lock, run.data_report, run.strategies))
