"""The configuration of `sftkey segment`."""

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.rules import Rules
from sftkey_dist.config.section import Section
from sftkey_dist.contract import ResponseContract


class SegmentConfig(Section):
    """How whole responses are cut into segments."""

    rules: Rules = ("default",)
    """Rules that look for the answer, the most trusted first: `default` (all built-in rules; `last_line` among them
    only proposes an answer), names of built-in rules, and custom rules with `regex`. If rules disagree, the row is left
    for review by a person."""
    contract: ResponseContract = ResponseContract()
    """Names of the segments, and checks of their texts."""
    endpoint: EndpointConfig | None = None
    """A language model that segments the rows that the rules leave. Default: none is used."""
