"""Fixes the date in chat templates that print the current date, so that prompts stay the same on later days.

`transformers` provides templates with a function `strftime_now`. A macro of that name at the top of the template
overrides it, also in any server that loads the folder later.
"""

import datetime
import re

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


def chat_templates(tokenizer: object) -> dict[str, str]:
    """The templates of a tokenizer by name; a single template is named "default"."""
    templates = getattr(tokenizer, "chat_template", None) or {}
    return templates if isinstance(templates, dict) else {"default": templates}
