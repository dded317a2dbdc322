"""Creates model folders from others: large files are shared, changed files are rewritten, and the source is
unchanged."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftkey_dist.files import folder_written_whole
from sftkey_dist.models.chat_template import TemplateSettings, chat_templates
from sftkey_dist.models.load import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


def fix_templates(tokenizer: "PreTrainedTokenizerBase", settings: TemplateSettings) -> None:
    """Replace the chat templates of a tokenizer by those with what is fixed in them."""
    fixed = settings.applied(chat_templates(tokenizer))
    has_several = isinstance(tokenizer.chat_template, dict) and settings.template is None
    tokenizer.chat_template = fixed if has_several else fixed["default"]


def write_with_template(
    source: Path, target: Path, settings: TemplateSettings, trust_remote_code: bool = False
) -> None:
    """Write the model folder ``source`` to ``target`` with what is fixed in its chat templates."""
    tokenizer = load_tokenizer(source, trust_remote_code)
    fix_templates(tokenizer, settings)
    with folder_written_whole(target) as scratch:
        for file in source.iterdir():
            if file.is_file():
                link_file(file, scratch / file.name)
        save_over(scratch, tokenizer)
