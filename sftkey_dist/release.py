"""Which release of the package this is."""

import importlib.metadata
from pathlib import Path

from sftkey_dist.digests import digest_file, digest_json


def version() -> str:
    """Version of the package that is installed, or that a job brought along."""
    try:
        return importlib.metadata.version("sftkey_dist")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def code_digest() -> str:
    """Digest of the package's source, which differs where two copies of one release were changed."""
    package = Path(__file__).parent
    sources = {str(file.relative_to(package)): digest_file(file) for file in package.rglob("*.py")}
    return digest_json(sources)[:12]
