"""How an answer is compared with its reference without a judge model."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.paths import Location
from sftkey_dist.config.section import Section
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern

CheckName = Literal["auto", "exact", "numeric", "math", "option", "label", "json", "tool_call"]


class RegexCheck(Section):
    """Compares what a regular expression finds in the answer and in the reference."""

    regex: str
    """Regular expression. Its last match counts: the first group that took part in it or, without groups, the whole
    match. It is compared as text."""

    @model_validator(mode="after")
    def compiles(self) -> Self:
        """Otherwise a pattern that does not compile would be found only after the training."""
        try:
            compile_pattern(self.regex)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


class LabelCheck(Section):
    """Compares which one of a few labels an answer names."""

    labels: tuple[str, ...] = Field(min_length=2)
    """The labels. An answer must name exactly one of them."""


class JsonCheck(Section):
    """Compares fields of a JSON object."""

    json_fields: tuple[str, ...] = Field(min_length=1)
    """The fields that must be equal; `a.b` is the field b inside the field a."""


class FunctionCheck(Section):
    """Compares with a Python function that you supply."""

    function: Location = Field(pattern=r"^.+:[A-Za-z_]\w*$")
    """`package.module:name` or `path/to/file.py:name`. It is called with answer, reference and question, and returns
    True, False, or None if it cannot decide."""
    digest: str = Field("", pattern=r"^[0-9a-f]*$")
    """Digest of the function's file. The run fills it in, so that answers are judged again after the function
    changes."""


def without_folders(content: Any) -> Any:
    """Plain values that contain checks, without the folders of functions' files, whose digests stand beside them.

    What depends on a function does not depend on where its file lies, which is another place in every job.
    """
    if isinstance(content, list):
        return [without_folders(item) for item in content]
    if not isinstance(content, dict):
        return content
    if content.keys() == FunctionCheck.model_fields.keys() and content["digest"]:
        return content | {"function": content["function"].rpartition("/")[2]}
    return {name: without_folders(value) for name, value in content.items()}


AnswerCheck = CheckName | RegexCheck | LabelCheck | JsonCheck | FunctionCheck
