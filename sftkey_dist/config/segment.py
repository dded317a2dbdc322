"""The configuration of `sftkey segment`."""

from sftkey_dist.config.data import Rules
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.section import Section
from sftkey_dist.contract import ResponseContract


class SegmentConfig(Section):
    """How whole responses are cut into segments."""

    rules: Rules = ("default",)
    """Rules that look for the answer, the most trusted first: `default` (all built-in ones, of which `last_line` only
    proposes), names, and rules of your own with `regex`. What they find must agree, or the row is for a person."""
    contract: ResponseContract = ResponseContract()
    """Names and checks of the segments."""
    endpoint: EndpointConfig | None = None
    """A language model that cuts what the rules leave; none is asked by default."""
