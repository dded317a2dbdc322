"""How a prompt is written."""

import datetime
from typing import Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from sftkey_dist.config.section import Section


class PromptConfig(Section):
    """How a prompt is written, the same in training and in generation."""

    template: Literal["auto", "chat", "plain"] = "auto"
    """The tokenizer's chat template, the plain one below, or `auto`: chat if the tokenizer has one."""
    plain: str = "Question: {prompt}\nAnswer:\n"
    """Plain template; must contain `{prompt}` once."""
    system: str | None = None
    """System message for the chat template."""
    date: datetime.date | None = None
    """The date that a chat template prints which prints one, in training, generation and the exported model alike;
    default: the day on which the run was first prepared."""

    @property
    def without_date(self) -> "PromptConfig":
        """For a model folder whose template has the date written into it."""
        return self.model_copy(update={"date": None})

    @model_serializer(mode="wrap")
    def date_only_where_it_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Digests are the same as before there was a date where none is set."""
        return {key: value for key, value in handler(self).items() if key != "date" or value is not None}

    @model_validator(mode="after")
    def plain_has_its_field(self) -> Self:
        """The plain template is filled by plain replacement."""
        if self.plain.count("{prompt}") != 1:
            raise ValueError(f"prompt.plain must contain {{prompt}} exactly once, got {self.plain!r}")
        return self
