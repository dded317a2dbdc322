"""What was asked, as a judge and a person read it."""

from collections.abc import Mapping
from typing import Any


def conversation_of(record: Mapping[str, Any]) -> str:
    """All that was said up to the response: the prompt, after the turns before it where there are any."""
    if not record.get("history"):
        return str(record["prompt"])
    turns = [*record["history"], {"role": "user", "content": record["prompt"]}]
    return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in turns)
