"""How an answer is compared with its reference without asking a model."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.paths import Location
from sftkey_dist.config.section import Section
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern

CheckName = Literal["auto", "exact", "numeric", "math", "option", "label", "json"]


class RegexCheck(Section):
    """What counts is what a regular expression finds."""

    regex: str
    """Its first group that took part, or the whole match without groups, where it matches last; compared as text."""

    @model_validator(mode="after")
    def compiles(self) -> Self:
        """A pattern that does not compile would stop the evaluation after the training."""
        try:
            compile_pattern(self.regex)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


class LabelCheck(Section):
    """One of a few labels."""

    labels: tuple[str, ...] = Field(min_length=2)
    """The labels; of those that an answer names, it must name one alone."""


class JsonCheck(Section):
    """Fields of a JSON object."""

    json_fields: tuple[str, ...] = Field(min_length=1)
    """The fields that must be equal; `a.b` is field b of field a."""


class FunctionCheck(Section):
    """A Python function of yours."""

    function: Location = Field(pattern=r"^.+:[A-Za-z_]\w*$")
    """`package.module:name` or `path/to/file.py:name`; called with answer, reference and question, it returns True,
    False, or None where it cannot tell."""
    digest: str = Field("", pattern=r"^[0-9a-f]*$")
    """Of the file; filled in by the run, so that answers are judged again when the function has changed."""


AnswerCheck = CheckName | RegexCheck | LabelCheck | JsonCheck | FunctionCheck
