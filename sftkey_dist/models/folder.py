"""Creates model folders from others: large files are shared, changed files are rewritten, and the source is
unchanged."""

import datetime
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sftkey_dist.files import folder_written_whole
from sftkey_dist.models.chat_template import chat_templates, with_date
from sftkey_dist.models.load import load_tokenizer


def link_file(source: Path, target: Path) -> None:
    """Create a hard link to a file if the file system supports it, or else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def save_over(folder: Path, *saved: Any) -> None:
    """Call `save_pretrained` of each item and replace the files of the folder, which may be links, without writing to
    them."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for item in saved:
            item.save_pretrained(scratch)
        for new in Path(scratch).iterdir():
            os.replace(new, folder / new.name)


def write_with_date(source: Path, target: Path, day: datetime.date, trust_remote_code: bool = False) -> None:
    """Write the model folder ``source`` to ``target`` with the date in its templates fixed."""
    tokenizer = load_tokenizer(source, trust_remote_code)
    pinned = {name: with_date(template, day) for name, template in chat_templates(tokenizer).items()}
    tokenizer.chat_template = pinned if isinstance(tokenizer.chat_template, dict) else pinned["default"]
    with folder_written_whole(target) as scratch:
        for file in source.iterdir():
            if file.is_file():
                link_file(file, scratch / file.name)
        save_over(scratch, tokenizer)
