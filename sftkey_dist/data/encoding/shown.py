"""Finds what a chat template leaves out of a conversation.

Templates are programs that ignore what they do not know: one without tools writes a conversation without their results,
and the model is then trained to invent them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from sftkey_dist.data.adapters.tools import name_of
from sftkey_dist.data.example import Turn

_SWITCH = re.compile(r"/(?:no_?)?think\b")
"""A switch of thinking models, which some templates read and remove."""


def hidden_parts(rendered: str, turns: Sequence[Turn], tools: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Name each part of a conversation that its rendered text does not contain.

    Of an earlier response only the end must be there, because many templates drop its thinking.
    """
    for tool in tools:
        if name_of(tool) not in rendered:
            yield f"the tool {name_of(tool)!r}"
    for turn in turns:
        if not _shows(rendered, turn):
            yield f"the message of role {turn.role!r}, {turn.content.strip()[:40]!r}"
        for call in turn.tool_calls:
            if name_of(call) not in rendered:
                yield f"the call of {name_of(call)!r}"


def _shows(rendered: str, turn: Turn) -> bool:
    text = turn.content.strip()
    if turn.role == "assistant":
        text = text.rpartition("\n")[2].strip()
    # Some templates write the results of tools as JSON text.
    if text in rendered or json.dumps(text, ensure_ascii=False)[1:-1] in rendered:
        return True
    return _SWITCH.search(text) is not None and all(part.strip() in rendered for part in _SWITCH.split(text))
