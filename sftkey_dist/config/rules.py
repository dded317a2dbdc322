"""The configuration of the rules that find the segments of a response."""

from typing import Literal, Self

from pydantic import model_validator

from sftkey_dist.config.section import Section
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern


class RegexRule(Section):
    """A custom segmentation rule: the named groups of a regular expression are the segments of a response."""

    name: str = "regex"
    """Name used in reports."""
    regex: str
    """Regular expression that must match the whole response. Each named group is a segment, for example
    `(?P<reasoning>.+)\\nVerdict: (?P<answer>.+)`."""
    separators: str = r"\s*\S{0,20}\s*"
    """Regular expression for the text between segments, which is dropped. Any other text there is an error, so that
    nothing else is lost."""

    @model_validator(mode="after")
    def compiles_and_names_segments(self) -> Self:
        """A rule without named groups would find no segments."""
        for pattern in (self.regex, self.separators):
            try:
                compile_pattern(pattern)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        if not compile_pattern(self.regex).groupindex:
            raise ValueError(f"regex {self.regex!r} needs a named group for each segment, such as (?P<answer>.+)")
        return self


RuleName = Literal["default", "hash_marks", "think", "boxed", "answer_is", "option_letter", "last_line"]
Rules = tuple[RuleName | RegexRule, ...]
