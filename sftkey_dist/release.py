"""Which release of the package this is."""

import importlib.metadata


def version() -> str:
    """Version of the package that is installed, or that a job brought along."""
    try:
        return importlib.metadata.version("sftkey_dist")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
