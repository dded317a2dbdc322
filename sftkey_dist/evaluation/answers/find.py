"""Where the answer of an output is."""

from dataclasses import dataclass
from typing import Literal

from sftkey_dist.contract import Form, ResponseContract


@dataclass(frozen=True)
class FoundAnswer:
    """An answer's text, and how it was found.

    ``strict``: the contract was kept. ``lenient``: behind the last opening tag or delimiter of a broken output.
    ``whole``: there is none, and the whole output is taken for the answer.
    """

    text: str
    source: Literal["strict", "lenient", "whole"]


def find_answer(output: str, contract: ResponseContract, form: Form, segment: str) -> FoundAnswer:
    """The text of a key segment: by the contract where it is kept, else the best an accommodating reader finds.

    Accuracy and format are separate measures (METHOD: Key-Tag can answer well in broken format), so a broken
    output still has its answer looked for.
    """
    parsed = contract.parse(output, form)
    if parsed.keeps_contract:
        return FoundAnswer(parsed.values.get(segment, "").strip(), "strict")
    found = contract.search(output, form, segment)
    return FoundAnswer(found, "whole" if found == output.strip() else "lenient")
