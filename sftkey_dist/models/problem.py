"""What libraries say when they cannot load or write a model, in a line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftkey_dist.errors import ModelError

_MOST_CHARACTERS = 300


def loading_problem(error: Exception) -> str:
    """One line; of a model with code of its own, what to do."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it ships code of its own; read that code, and set model.trust_remote_code=true if you trust it"
    return text[:_MOST_CHARACTERS]


@contextmanager
def writing_named(folder: Path) -> Iterator[None]:
    """Errors of writing that libraries in Rust raise in the block as classes of their own, as what they are.

    Raises:
        ModelError: a file of the folder could not be written.
    """
    try:
        yield
    except Exception as error:  # safetensors raises its own class, tokenizers a bare Exception
        found = re.search(r"([^:(]+) \(os error \d+\)", str(error))
        if found is None:
            raise
        raise ModelError(f"{folder}: a model cannot be written there: {found[1].strip()}") from error
