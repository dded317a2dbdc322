"""Templates that print the date: one day, in every folder and on every day."""

import copy
import datetime

import pytest
from transformers.utils import chat_template_utils

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.models.chat_template import TemplateSettings, reads_clock, variables_of, with_date
from sftkey_dist.models.folder import write_with_template
from sftkey_dist.models.load import load_tokenizer

DAY = datetime.date(2024, 1, 3)
TODAY = "Today: {{ strftime_now('%d %B %Y %H:%M:%S') }}\n"
QUESTION = [{"role": "user", "content": "q"}]


@pytest.fixture
def clock(monkeypatch):
    """Set what templates and this project take for the present day."""

    def set_day(year, month, day):
        now = datetime.datetime(year, month, day)
        fixed = type("fixed", (datetime.datetime,), {"now": classmethod(lambda cls, tz=None: now)})
        monkeypatch.setattr(chat_template_utils, "datetime", fixed)
        today = type("today", (datetime.date,), {"today": classmethod(lambda cls: now.date())})
        monkeypatch.setattr(datetime, "date", today)

    return set_day


def dated(tokenizer):
    made = copy.deepcopy(tokenizer)
    made.chat_template = TODAY + tokenizer.chat_template
    return made


def render(tokenizer, template):
    return tokenizer.apply_chat_template(QUESTION, chat_template=template, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    "template",
    [
        TODAY,
        "{%- set today = strftime_now('%d %b %Y') %}\n  {%- if today %}{{ today + '.' }}{% endif %}\n x",
        '\n\n{{ strftime_now("%Y-%m-%d 100%% %%d %-d %j %A") }}',
        '{% for m in messages %}{{ m.content ~ strftime_now("%b %y") }}{% endfor %}',
        "  {% if strftime_now is defined %}{% set fmt = '%y' %}{{ strftime_now(fmt) }}{% endif %}",
        "{% macro head() %}{{ strftime_now('%F') }}{% endmacro %}{{ head() }}",
        "{%- if not date is defined %}{%- set date = strftime_now('%d %b %Y') %}{%- endif %}{{ date }}",
    ],
)
def test_a_pinned_template_renders_what_the_clock_would_that_day(tokenizer, template, clock):
    clock(2024, 1, 3)
    on_that_day = render(tokenizer, template)
    pinned = with_date(template, DAY)
    clock(2025, 6, 30)
    assert render(tokenizer, template) != on_that_day
    assert render(tokenizer, pinned) == on_that_day
    assert with_date(pinned, datetime.date(2025, 6, 30)) == pinned
    assert reads_clock(template)
    assert not reads_clock(pinned)


def test_a_template_without_a_date_stays_as_it_is(tokenizer):
    assert with_date(tokenizer.chat_template, DAY) == tokenizer.chat_template
    assert PromptEncoder(tokenizer, PromptConfig(date=DAY)).date is None
    assert PromptEncoder(dated(tokenizer), PromptConfig(template="plain", date=DAY)).date is None


def test_one_encoder_prints_one_date_the_set_one_or_that_of_its_making(tokenizer, clock):
    example = Example("x:1", "q", {})
    clock(2025, 1, 31)
    by_default, by_setting = (PromptEncoder(dated(tokenizer), PromptConfig(date=date)) for date in (None, DAY))
    clock(2025, 2, 1)
    assert by_default.text(example).startswith("Today: 31 January 2025 00:00:00\n")
    assert by_setting.text(example).startswith("Today: 03 January 2024 00:00:00\n")


@pytest.mark.parametrize("several", [False, True])
def test_a_folder_is_written_with_the_date_and_its_source_is_not_touched(tiny_model, tmp_path, several, clock):
    source = tmp_path / "source"
    tokenizer = dated(load_tokenizer(tiny_model))
    if several:
        tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "tools" + TODAY}
    tokenizer.save_pretrained(source)
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((tiny_model / name).read_bytes())
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in source.rglob("*") if file.is_file()}
    write_with_template(source, tmp_path / "target", TemplateSettings(date=DAY))
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
    clock(2025, 2, 1)
    pinned = load_tokenizer(tmp_path / "target")
    assert render(pinned, None).startswith("Today: 03 January 2024 00:00:00\n")
    if several:
        assert render(pinned, "tool_use") == "toolsToday: 03 January 2024 00:00:00"
    pinned.save_pretrained(tmp_path / "exported")
    assert render(load_tokenizer(tmp_path / "exported"), None) == render(pinned, None)
    assert (tmp_path / "target" / "model.safetensors").samefile(source / "model.safetensors")
    assert pinned.backend_tokenizer.to_str() == load_tokenizer(source).backend_tokenizer.to_str()


@pytest.mark.parametrize(
    "value",
    [
        False,
        None,
        3,
        -1.5,
        """a "quoted" 'text' %} {{ x }} \\ with\nlines, ü and 🙂""",
        ["a", None, [True]],
        {"effort": "high", "budget": {"tokens": 5}},
    ],
)
def test_an_argument_is_a_default_that_a_caller_may_override(tokenizer, value):
    in_macro = "{% macro head() %}{{ x | tojson }}{% endmacro %}{{ head() }}"
    template = in_macro + "{% for m in messages %}{{ x | tojson }}{% endfor %}"
    fixed = TemplateSettings(arguments={"x": value}).applied({"default": template})["default"]
    assert render(tokenizer, fixed) == tokenizer.apply_chat_template(
        QUESTION, chat_template=template, tokenize=False, add_generation_prompt=True, x=value
    )
    other = tokenizer.apply_chat_template(QUESTION, chat_template=fixed, tokenize=False, x="other")
    assert other == '"other""other"'
    assert variables_of(fixed) == {"messages", "x"}


def test_variables_are_those_that_are_not_set_in_the_template_itself():
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% generation %}{{ m.content }}{{ effort }}"
        "{% endgeneration %}{% continue %}{% endfor %}{{ ns.n }}{% if date_string is not defined %}"
        "{% set date_string = '1' %}{% endif %}{{ date_string }}"
    )
    assert variables_of(template) == {"messages", "effort", "date_string"}


def test_a_folder_is_written_with_another_template_and_its_arguments(tiny_model, tmp_path):
    settings = TemplateSettings("{{ messages[0].content }}{{ mood }}", {"mood": "!"})
    write_with_template(tiny_model, tmp_path / "target", settings)
    loaded = load_tokenizer(tmp_path / "target")
    assert render(loaded, None) == "q!"
    loaded.save_pretrained(tmp_path / "exported")
    assert render(load_tokenizer(tmp_path / "exported"), None) == "q!"
    assert render(load_tokenizer(tiny_model), None) != "q!"
