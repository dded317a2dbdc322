"""Prompt templates of judges: files with a digest, and texts that cannot instruct whoever reads them.

What goes in is written as a JSON string in which whatever may end the quotes, pass for one of the judge's control
tokens, or hide or reorder text is an escape, which JSON reads back: angle brackets and their look-alikes, brackets such
as those of ``[INST]``, line separators, control, bidirectional, zero-width and tag characters, and lone surrogates.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from sftkey_dist.endpoint import Chat
from sftkey_dist.errors import ConfigError
from sftkey_dist.visible import INVISIBLE

_PLACEHOLDER = re.compile(r"\{(question|reference|answer)\}")
_LONGEST_CHARACTERS = 8000
_QUOTING_VERSION = 2
_ANGLES = "[<>\uff1c\uff1e\ufe64\ufe65\uff3b\uff3d\u25c1\u25b7]"
"""Angle brackets, look-alikes that normalization may make into them, and those of ``◁think▷``."""
_BRACKETS = r"\[(?=/?[A-Za-z_][\w-]{1,60}\]|\||\w?~)|\](?=!?~)"
"""As of ``[/INST]``, ``[|user|]``, ``[e~[`` and ``]~b]``."""
_ESCAPED = re.compile(f"{_ANGLES}|{_BRACKETS}|{INVISIBLE}")


@dataclass(frozen=True)
class Question:
    """What a judge is asked about; ``question`` holds the whole conversation where there are several turns."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class JudgeTemplate:
    """A prompt with places for question, reference and answer."""

    name: str
    system: str
    user: str

    @cached_property
    def digest(self) -> str:
        """Names the template in caches and reports: another wording is another judge."""
        return hashlib.sha256(json.dumps([_QUOTING_VERSION, self.system, self.user]).encode()).hexdigest()

    def chat(self, question: Question) -> Chat:
        """The prompt about one answer."""
        return Chat(_filled(self.system, question), _filled(self.user, question))


def load_template(name: str) -> JudgeTemplate:
    """A template that comes with the package, by name, or a file.

    A line ``[system]`` and a line ``[user]`` begin the two messages; without them all is the user's.

    Raises:
        ConfigError: there is no such template, or it lacks a placeholder.
    """
    shipped = resources.files("sftkey_dist.evaluation.judge") / "templates" / f"{name}.txt"
    try:
        text = shipped.read_text(encoding="utf-8") if shipped.is_file() else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"evaluation.judge: no template {name!r} ({type(error).__name__}); name a file, or one of equivalence, "
            f"explanation"
        ) from error
    before, _, user = text.partition("[user]\n")
    system = before.partition("[system]\n")[2] if user else ""
    template = JudgeTemplate(name, system.strip(), (user or text).strip())
    missing = {"question", "reference", "answer"} - set(_PLACEHOLDER.findall(template.system + template.user))
    if missing:
        raise ConfigError(f"evaluation.judge: template {name} must contain {{{sorted(missing)[0]}}}")
    return template


def _filled(text: str, question: Question) -> str:
    """In one pass, so that a placeholder inside an answer stays what it is."""
    return _PLACEHOLDER.sub(lambda match: _as_data(getattr(question, match.group(1))), text)


def _as_data(text: str) -> str:
    """Of a very long text the end is kept: that is where answers are. What is missing is said at its beginning."""
    left_out = len(text) - _LONGEST_CHARACTERS
    if left_out > 0:
        text = f"… the first {left_out} characters are left out: {text[left_out:]}"
    return _ESCAPED.sub(lambda match: _escape(match.group()), json.dumps(text, ensure_ascii=False))


def _escape(character: str) -> str:
    """As JSON writes it: `\\uXXXX`, twice beyond the basic plane."""
    return json.dumps(character)[1:-1] if not character.isascii() else f"\\u{ord(character):04x}"
