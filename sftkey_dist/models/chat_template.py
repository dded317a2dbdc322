"""Fixes in a chat template what a run says about it, so that every program that loads the model writes one prompt.

A template that prints the current date gets it from a function `strftime_now` of `transformers`. A macro of that name
at the top of the template overrides it, also in any server that loads the folder later. Arguments of the template are
written as the defaults of its variables.
"""

import datetime
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox

from sftkey_dist.config.prompt import is_template_argument
from sftkey_dist.errors import ModelError
from sftkey_dist.suggestion import closest_name

_CLOCK = "strftime_now"
_MACRO = re.compile(rf"{{%-? macro {_CLOCK}\(")
_DIRECTIVE = re.compile(r"%%|%[-_0^#]?[A-Za-z]")
_PERCENT = "<percent>"


def reads_clock(template: str) -> bool:
    """Whether a template prints the current date."""
    return _CLOCK in template and not _MACRO.search(template)


def with_date(template: str, day: datetime.date) -> str:
    """The template with its date fixed to ``day``, at midnight; unchanged if it does not print the current date."""
    if not reads_clock(template):
        return template
    midnight = datetime.datetime.combine(day, datetime.time())
    directives = sorted(set(_DIRECTIVE.findall(template)) - {"%%"})
    replaced = [(directive, midnight.strftime(directive)) for directive in directives]
    if "%%" in template:  # so that "%%" followed by a letter is not read as a directive
        replaced = [("%%", _PERCENT), *replaced, (_PERCENT, "%")]
    filters = "".join(f" | replace({old!r}, {new!r})" for old, new in replaced)
    # In transformers a block removes the line break after it, so nothing is added to the rendered text.
    return (
        f"{{#- The date is pinned to {day.isoformat()}, as in training. -#}}\n"
        f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}\n{template}"
    )


def with_arguments(template: str, arguments: Mapping[str, object]) -> str:
    """The template with default values of its variables; a value that a caller gives takes precedence."""
    defaults = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
        for name, value in sorted(arguments.items())
    )
    # In transformers a block removes the line break after it, so nothing is added to the rendered text.
    return f"{defaults}\n{template}" if defaults else template


def variables_of(template: str) -> frozenset[str]:
    """The variables of a template that whoever renders it can set.

    Raises:
        ModelError: It is not a template.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(extensions=[_Generation, jinja2.ext.loopcontrols])
    try:
        return frozenset(jinja2.meta.find_undeclared_variables(environment.parse(template)))
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(f"the chat template is not valid: {error} (line {error.lineno})") from error


def unused_argument(variables: Collection[str], arguments: Collection[str]) -> str:
    """What is wrong with an argument that a template with these variables ignores; "" if it uses all of them."""
    name = next((name for name in arguments if name not in variables), None)
    if name is None:
        return ""
    own = sorted(name for name in variables if is_template_argument(name))
    close = closest_name(name, own)
    meant = f"did you mean {close!r}? " if close else ""
    return f"the chat template has no variable {name!r}; {meant}it has {', '.join(own) or 'none'}"


@dataclass(frozen=True)
class TemplateSettings:
    """What a run fixes in the chat template of its model.

    Attributes:
        template: text that replaces the tokenizer's template.
        arguments: default values of the template's variables.
        date: the date that the template prints, if it prints one.
    """

    template: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    date: datetime.date | None = None

    @property
    def identity(self) -> list[object]:
        """Plain values that differ where the settings do; empty if nothing is fixed."""
        changes = {"chat_template": self.template, "template_arguments": dict(self.arguments)}
        given = {key: value for key, value in changes.items() if value}
        return [*([self.date.isoformat()] if self.date else []), *([given] if given else [])]

    def applied(self, templates: Mapping[str, str]) -> dict[str, str]:
        """The templates of a tokenizer, by name, with what is fixed."""
        texts = templates if self.template is None else {"default": self.template}
        fixed = {name: with_arguments(text, self.arguments) for name, text in texts.items()}
        return {name: with_date(text, self.date) if self.date else text for name, text in fixed.items()}


def chat_templates(tokenizer: object) -> dict[str, str]:
    """The templates of a tokenizer by name; a single template is named "default"."""
    templates = getattr(tokenizer, "chat_template", None) or {}
    return templates if isinstance(templates, dict) else {"default": templates}


def _literal(value: object) -> str:
    """A JSON value as an expression of a template, whose constants are written otherwise."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


class _Generation(jinja2.ext.Extension):
    """The blocks with which templates for `transformers` mark what an assistant writes."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it like this)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
