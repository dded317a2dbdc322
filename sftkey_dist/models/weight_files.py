"""The files of a model folder that libraries load its weights from."""

import json
from pathlib import Path

INDEX, ONE_FILE = "model.safetensors.index.json", "model.safetensors"
"""Names that transformers gives to the index of several files, and to a single file."""


def weight_files(folder: Path) -> list[Path]:
    """The files that the index names, or the only file; all of them if there is neither.

    A folder may also contain copies of the weights for other libraries, such as Mistral's `consolidated.safetensors`.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            named = {folder / name for name in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError):
            named = set()
        if named and all(file.is_file() for file in named):
            return sorted(named)
    one = folder / ONE_FILE
    return [one] if one.is_file() and not index.is_file() else sorted(folder.glob("*.safetensors"))
