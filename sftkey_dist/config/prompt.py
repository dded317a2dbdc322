"""How prompts are written."""

import datetime
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from sftkey_dist.config.paths import LocalPath
from sftkey_dist.config.section import SectionWithNewerKeys

_SET_BY_CALLERS = re.compile(
    r"messages|tools|documents|add_generation_prompt|continue_final_message|raise_exception|strftime_now|\w+_token"
)
"""What whoever renders a chat template provides: the conversation, functions and the tokenizer's special tokens."""


def is_template_argument(name: str) -> bool:
    """Whether a variable of a chat template has a value of its own, which a run may choose."""
    return not _SET_BY_CALLERS.fullmatch(name)


def _are_template_arguments(arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in arguments:
        if not name.isidentifier():
            raise ValueError(f"{name!r} is not the name of a variable")
        if not is_template_argument(name):
            raise ValueError(f"{name!r} is set whenever a template is rendered, and cannot be an argument")
    return arguments


TemplateArguments = Annotated[dict[str, JsonValue], AfterValidator(_are_template_arguments)]
"""Values of a chat template's own variables, by name."""


class PromptConfig(SectionWithNewerKeys):
    """How prompts are written, in training and in generation alike."""

    newer_keys = frozenset({"date", "chat_template", "template_arguments"})

    template: Literal["auto", "chat", "plain"] = "auto"
    """`chat`: the tokenizer's chat template; `plain`: the template in `plain`; `auto`: the chat template if the
    tokenizer has one, and otherwise the plain one."""
    plain: str = "Question: {prompt}\nAnswer:\n"
    """Plain template. It must contain `{prompt}` exactly once."""
    system: str | None = None
    """System message for the chat template."""
    chat_template: LocalPath | None = None
    """File with a chat template (Jinja) that replaces the tokenizer's. The exported models contain it."""
    template_arguments: TemplateArguments = Field(default_factory=dict)
    """Values of the chat template's own variables, for example `{enable_thinking: false}`. The exported models contain
    them as defaults, so that whoever serves a model writes the same prompts. Arguments of one row, in a column
    `chat_template_kwargs`, take precedence."""
    date: datetime.date | None = None
    """Date for chat templates that contain the current date. It is the same in training, in generation and in the
    exported model. Default: the day on which the run was first prepared."""

    @property
    def of_prepared_model(self) -> "PromptConfig":
        """The same configuration for the model folder of a prepared run, whose chat template contains what the
        configuration says about it: the date, the arguments and the template itself."""
        return self.model_copy(update={"date": None, "chat_template": None, "template_arguments": {}})

    @model_validator(mode="after")
    def plain_prompts_use_no_chat_template(self) -> Self:
        """What would be ignored is an error."""
        given = [key for key in ("chat_template", "template_arguments") if getattr(self, key)]
        if self.template == "plain" and given:
            raise ValueError(f"prompt.template=plain does not use a chat template; remove prompt.{given[0]}")
        return self

    @model_validator(mode="after")
    def plain_has_its_field(self) -> Self:
        """The plain template is filled in by replacing `{prompt}`."""
        if self.plain.count("{prompt}") != 1:
            raise ValueError(f"prompt.plain must contain {{prompt}} exactly once, got {self.plain!r}")
        return self
