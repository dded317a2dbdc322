"""Chat templates that print the date: the day is written into the template, so that a prompt is the same ever after.

`transformers` gives templates a function `strftime_now`. A macro of that name, at the top of the template, takes its
place, also in whatever serves the folder later.
"""

import datetime
import re
from typing import Any

_CLOCK = "strftime_now"
_MACRO = re.compile(rf"{{%-? macro {_CLOCK}\(")
_DIRECTIVE = re.compile(r"%%|%[-_0^#]?[A-Za-z]")
_PERCENT = "<percent>"


def reads_clock(template: str) -> bool:
    """Whether a template prints the date of the day that it is used on."""
    return _CLOCK in template and not _MACRO.search(template)


def with_date(template: str, day: datetime.date) -> str:
    """The template with its clock stopped at midnight of ``day``; as it is where it reads no clock."""
    if not reads_clock(template):
        return template
    midnight = datetime.datetime.combine(day, datetime.time())
    directives = sorted(set(_DIRECTIVE.findall(template)) - {"%%"})
    replaced = [(directive, midnight.strftime(directive)) for directive in directives]
    if "%%" in template:  # a directive may stand behind it
        replaced = [("%%", _PERCENT), *replaced, (_PERCENT, "%")]
    filters = "".join(f" | replace({old!r}, {new!r})" for old, new in replaced)
    # Blocks swallow the line break after them, as they do in transformers: nothing is added to what is rendered.
    return (
        f"{{#- The date is pinned to {day.isoformat()}, as in training. -#}}\n"
        f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}\n{template}"
    )


def chat_templates(tokenizer: Any) -> dict[str, str]:
    """The templates of a tokenizer by name; one alone is called "default"."""
    templates = getattr(tokenizer, "chat_template", None) or {}
    return templates if isinstance(templates, dict) else {"default": templates}
