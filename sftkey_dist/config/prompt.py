"""How prompts are written."""

import datetime
from typing import Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from sftkey_dist.config.section import Section


class PromptConfig(Section):
    """How prompts are written, in training and in generation alike."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """`chat`: the tokenizer's chat template; `plain`: the template in `plain`; `auto`: the chat template if the
    tokenizer has one, and otherwise the plain one."""
    plain: str = "Question: {prompt}\nAnswer:\n"
    """Plain template. It must contain `{prompt}` exactly once."""
    system: str | None = None
    """System message for the chat template."""
    date: datetime.date | None = None
    """Date for chat templates that contain the current date. It is the same in training, in generation and in the
    exported model. Default: the day on which the run was first prepared."""

    @property
    def without_date(self) -> "PromptConfig":
        """The same configuration without a date, for a model folder whose template already contains the date."""
        return self.model_copy(update={"date": None})

    @model_serializer(mode="wrap")
    def date_only_where_it_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a date that is not set, so that digests equal those from before this key existed."""
        return {key: value for key, value in handler(self).items() if key != "date" or value is not None}

    @model_validator(mode="after")
    def plain_has_its_field(self) -> Self:
        """The plain template is filled in by replacing `{prompt}`."""
        if self.plain.count("{prompt}") != 1:
            raise ValueError(f"prompt.plain must contain {{prompt}} exactly once, got {self.plain!r}")
        return self
