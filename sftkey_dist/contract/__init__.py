"""The response contract: ordered, named segments, and how responses are written and parsed."""

from sftkey_dist.contract.parts import (
    END_OF_TURN,
    PROMPT,
    PROMPT_ID,
    THINKING_TAGS,
    ContractError,
    Form,
    ParsedResponse,
    Piece,
    Violation,
    segments_of,
)
from sftkey_dist.contract.response import ResponseContract
from sftkey_dist.contract.segment import Check, NumberRange, Segment

__all__ = [
    "END_OF_TURN",
    "PROMPT",
    "PROMPT_ID",
    "THINKING_TAGS",
    "Check",
    "ContractError",
    "Form",
    "NumberRange",
    "ParsedResponse",
    "Piece",
    "ResponseContract",
    "Segment",
    "Violation",
    "segments_of",
]
