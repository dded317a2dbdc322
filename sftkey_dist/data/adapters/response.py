"""Segments whole responses, by rules or by the contract."""

from collections.abc import Mapping, Sequence

from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.adapters.columns import RowError
from sftkey_dist.data.segmenting.cut import Cut
from sftkey_dist.data.segmenting.decision import cut_response
from sftkey_dist.data.segmenting.rules import Rule


def segmented(
    response: str, rules: Sequence[Rule], contract: ResponseContract
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Segment a whole response by the rules or, without rules, by the contract in either form.

    Returns:
        The text of each segment, and the kinds of text that belong to no segment.

    Raises:
        RowError: No rule finds the segments, or the response does not keep the contract.
    """
    if rules:
        cut = cut_response(response, rules)
        if isinstance(cut, Cut):
            if cut.doubt is None:
                return cut.values, tuple(cut.removed)
            cut = cut.doubt
        raise RowError(cut.reason, f"the response is not segmented: {cut.detail}; see `sftkey segment`")
    parsed = contract.parse(response, Form.TAGGED)
    if not parsed.keeps_contract:
        plain = contract.parse(response, Form.UNTAGGED)
        parsed = plain if plain.keeps_contract else parsed
    if not parsed.keeps_contract:
        raise RowError(
            "not_segmented",
            f"the response does not keep the contract ({parsed.violation}: {parsed.detail}); give `rules`, or run "
            f"`sftkey segment` first",
        )
    return parsed.values, ()
