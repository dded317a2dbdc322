"""What a person's or a model's cut must fulfil, for they name texts where a rule points at them."""

import re
from collections.abc import Mapping, Sequence

from sftkey_dist.contract import ContractError, Form, ResponseContract
from sftkey_dist.data.segmenting.rules import uncovered

_CONNECTING_WORDS = r"(?:the|my|final|correct|answer|option|choice|is|so|therefore|thus|hence)"
_SEPARATORS = re.compile(rf"[\W_]*(?:{_CONNECTING_WORDS}[\W_]+)*", re.IGNORECASE)


def why_refused(
    values: Mapping[str, str], response: str, contract: ResponseContract, outside: Sequence[str] = ()
) -> str:
    """Why a cut is not accepted; "" when it is.

    Args:
        values: text of each segment.
        response: what they were cut from.
        contract: must be able to write them.
        outside: texts that may lie outside the segments, beside punctuation and words like "the answer is".
    """
    spans = {}
    for name, value in values.items():
        start = response.rfind(value)
        if not value.strip() or start < 0:
            return f"{name} {value[:40]!r} is not in the response"
        spans[name] = (start, start + len(value))

    def is_separator(text: str) -> bool:
        for allowed in outside:
            text = text.replace(allowed, " ")
        return _SEPARATORS.fullmatch(text) is not None

    return uncovered(response, spans, is_separator) or why_not_writable(values, contract)


def why_not_writable(values: Mapping[str, str], contract: ResponseContract) -> str:
    """Why a contract cannot write segments; "" when it can."""
    unknown = sorted(set(values) - {segment.name for segment in contract.segments})
    if unknown:
        return f"the contract has no segment {unknown[0]!r}"
    try:
        contract.render(values, Form.TAGGED)
    except ContractError as error:
        return f"{error.reason}: {error}"
    return ""
