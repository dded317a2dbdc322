"""SFTKey-Tag on Ray and DeepSpeed: whole tagged response first, key answer tokens second."""

import importlib.metadata


def version() -> str:
    """Of the package that is installed, or that a job brought along."""
    try:
        return importlib.metadata.version("sftkey_dist")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
