"""Finds the answer in an output."""

from dataclasses import dataclass
from typing import Literal

from sftkey_dist.contract import Form, ResponseContract


@dataclass(frozen=True)
class FoundAnswer:
    """An answer's text, and how it was found.

    ``strict``: the output keeps the contract. ``lenient``: the output breaks it, and this is the text after its last
    opening tag or delimiter. ``whole``: there is no such tag, and the whole output counts as the answer.
    """

    text: str
    source: Literal["strict", "lenient", "whole"]


def find_answer(output: str, contract: ResponseContract, form: Form, segment: str) -> FoundAnswer:
    """The text of a key segment, by the contract if the output keeps it, and by a lenient search otherwise.

    Accuracy and format are separate measures: a model may answer correctly in a broken format, so its answer is looked
    for in any case.
    """
    parsed = contract.parse(output, form)
    if parsed.keeps_contract:
        return FoundAnswer(parsed.values.get(segment, "").strip(), "strict")
    found = contract.search(output, form, segment)
    return FoundAnswer(found, "whole" if found == output.strip() else "lenient")
