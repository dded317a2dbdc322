"""Describes errors of libraries that load or write models in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ModelError

_MAX_CHARACTERS = 300


def loading_problem(error: Exception) -> str:
    """One line for an error; for a model with its own code, the remedy."""
    if "trust_remote_code" in str(error):
        return "its repository contains code; read that code, and set model.trust_remote_code=true if you trust it"
    return in_a_line(error, _MAX_CHARACTERS)


@contextmanager
def writing_named(folder: Path) -> Iterator[None]:
    """Convert write errors of libraries in Rust, which raise their own classes, to a ModelError.

    Raises:
        ModelError: A file of the folder could not be written.
    """
    try:
        yield
    except Exception as error:  # safetensors raises its own class, tokenizers a bare Exception
        found = re.search(r"([^:(]+) \(os error \d+\)", str(error))
        if found is None:
            raise
        raise ModelError(f"{folder}: the model cannot be written: {found[1].strip()}") from error
