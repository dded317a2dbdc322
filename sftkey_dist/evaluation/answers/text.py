"""Texts that say the same: case, white space, quotes and punctuation around them aside."""

import re

_WRAPPED = re.compile(r"^(?:\*\*|__|`|\$)(.+)(?:\*\*|__|`|\$)$", re.DOTALL)
_AROUND = " \t\r\n.,;:!?\"'`*\u201c\u201d\u2018\u2019"


def normalized(text: str) -> str:
    """The text as it is compared."""
    folded = " ".join(text.casefold().split())
    wrapped = _WRAPPED.match(folded)
    return (wrapped.group(1) if wrapped else folded).strip(_AROUND)
