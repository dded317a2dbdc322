"""Model folders made from others: big files are shared, what changes is written anew, and the other stays as it is."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any


def link_file(source: Path, target: Path) -> None:
    """Share a file where the file system can, else copy it."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def save_over(folder: Path, *saved: Any) -> None:
    """`save_pretrained` of each, in place of the files there: those may be links, and must not be written through."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for item in saved:
            item.save_pretrained(scratch)
        for new in Path(scratch).iterdir():
            os.replace(new, folder / new.name)
