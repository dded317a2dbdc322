"""Hashes by which prompts and whole examples are told apart."""

import hashlib
import json
from collections.abc import Sequence

from sftkey_dist.data.example import Example, Turn


def example_hashes(example: Example) -> tuple[int, int, int]:
    """Three 64-bit hashes of an example, all of them ignoring case and spacing of the prompt.

    Returns:
        The hashes of the prompt without the system message, of the whole prompt and the response, and of the whole
        prompt: with the system message, the tools and the arguments of the chat template. All examples of one
        conversation share the first hash, that of its last prompt, because they are held out together.
    """
    whole = _conversation(example, True)
    further = [sorted(part.items()) for part in (example.template_arguments, *example.tools) if part]
    if further:
        whole = json.dumps([whole, *further])
    return prompt_hash(example), _hash(json.dumps([whole, *sorted(example.values.items())])), _hash(whole)


def _conversation(example: Example, with_system: bool) -> str:
    question = " ".join(example.prompt.casefold().split())
    history = [turn for turn in example.history if with_system or turn.role != "system"]
    parts = [_turns(history), question, *([_turns(example.tool_turns)] if example.tool_turns else [])]
    return json.dumps(parts) if history or example.tool_turns else question


def _turns(turns: Sequence[Turn]) -> list[object]:
    return [(turn.role, turn.content, *([turn.fields] if turn.fields else [])) for turn in turns]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def prompt_hash(example: Example) -> int:
    """The first of `example_hashes`."""
    return _hash(_conversation(example.last_turn or example, False))
