"""Prompt templates of judges, which are identified by their digest, and the quoting of the texts that fill them.

A text is inserted as a JSON string, so that it cannot act as an instruction. Everything in it that could end the
quotes, be taken for a control token of the judge, or hide or reorder text is written as a JSON escape: angle brackets
and their look-alikes, brackets as in ``[INST]``, line separators, control, bidirectional, zero-width and tag
characters, and lone surrogates.
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
"""Angle brackets, look-alikes that normalization may turn into them, and the brackets of ``◁think▷``."""
_BRACKETS = r"\[(?=/?[A-Za-z_][\w-]{1,60}\]|\||\w?~)|\](?=!?~)"
"""Brackets as in ``[/INST]``, ``[|user|]``, ``[e~[`` and ``]~b]``."""
_ESCAPED = re.compile(f"{_ANGLES}|{_BRACKETS}|{INVISIBLE}")


@dataclass(frozen=True)
class Question:
    """What a judge is asked about. ``question`` holds the whole conversation if there are several turns."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class JudgeTemplate:
    """A prompt with placeholders for question, reference and answer."""

    name: str
    system: str
    user: str

    @cached_property
    def digest(self) -> str:
        """Identifies the template in caches and reports, since a judge with another wording is another judge."""
        return hashlib.sha256(json.dumps([_QUOTING_VERSION, self.system, self.user]).encode()).hexdigest()

    def chat(self, question: Question) -> Chat:
        """The prompt about one answer."""
        return Chat(_filled(self.system, question), _filled(self.user, question))


def load_template(name: str) -> JudgeTemplate:
    """Load a template that comes with the package, by its name, or a template file.

    The lines ``[system]`` and ``[user]`` start the two messages. Without them the whole text is the user message.

    Raises:
        ConfigError: the template does not exist or lacks a placeholder.
    """
    shipped = resources.files("sftkey_dist.evaluation.judge") / "templates" / f"{name}.txt"
    try:
        text = shipped.read_text(encoding="utf-8") if shipped.is_file() else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"evaluation.judge: there is no template {name!r} ({type(error).__name__}); give a file, or one of "
            f"equivalence, explanation"
        ) from error
    before, _, user = text.partition("[user]\n")
    system = before.partition("[system]\n")[2] if user else ""
    template = JudgeTemplate(name, system.strip(), (user or text).strip())
    missing = {"question", "reference", "answer"} - set(_PLACEHOLDER.findall(template.system + template.user))
    if missing:
        raise ConfigError(f"evaluation.judge: template {name} must contain {{{sorted(missing)[0]}}}")
    return template


def _filled(text: str, question: Question) -> str:
    """Fill all placeholders in one pass, so that a placeholder inside an answer is not replaced."""
    return _PLACEHOLDER.sub(lambda match: _as_data(getattr(question, match.group(1))), text)


def _as_data(text: str) -> str:
    """Quote a text. The beginning of a very long text is left out, with a note, because answers are at the end."""
    left_out = len(text) - _LONGEST_CHARACTERS
    if left_out > 0:
        text = f"… the first {left_out} characters are left out: {text[left_out:]}"
    return _ESCAPED.sub(lambda match: _escape(match.group()), json.dumps(text, ensure_ascii=False))


def _escape(character: str) -> str:
    """The JSON escape `\\uXXXX`; a surrogate pair beyond the basic multilingual plane."""
    return json.dumps(character)[1:-1] if not character.isascii() else f"\\u{ord(character):04x}"
