"""What the text after `=` means, by the key that it is for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkey_dist.config.overrides import parse_override
from sftkey_dist.config.run import RunConfig
from sftkey_dist.errors import ConfigError


def value_of(override):
    value = parse_override(RunConfig, override)
    for key in override.partition("=")[0].split("."):
        value = value[key]
    return value


@pytest.mark.parametrize(
    "text",
    [
        "Answer after ####",
        "You grade claims. Claim #1 is: approve",
        "&be brief",
        "*be* brief",
        "!be brief",
        "You are a grader: be strict",
        "{prompt} ####",
        "{prompt}",
        "[1, 2",
        '"a" and "b"',
        '"a" # b',
        "it's",
        "2024-01-01",
        "010",
        "yes",
        "# all of it",
        " kept ",
        "two\nlines",
    ],
)
def test_text_is_taken_as_it_stands(text):
    assert value_of(f"prompt.system={text}") == text
    assert value_of(f"data.train.name={text}") == text


@given(st.text())
def test_no_text_is_changed_but_by_quotes_around_all_of_it(text):
    unquoted = text[:1] not in ("'", '"') and text not in ("", "null")
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    if unquoted:
        assert value_of(f"prompt.system={text}") == text
    double = text.replace("\\", "\\\\").replace('"', '\\"')
    if text.isprintable():
        assert value_of(f'prompt.system="{double}"') == text


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("prompt.system='it''s # text'", "it's # text"),
        ('prompt.plain="Q: {prompt}\\nA:"', "Q: {prompt}\nA:"),
        ('prompt.system="null"', "null"),
        ("prompt.system=null", None),
        ("prompt.system=", None),
        ("data.train.name=null", "null"),
        ("data.train.subset=2024", "2024"),
        ("run_dir=~/runs/x", "~/runs/x"),
        ("run_dir=~", "~"),
        ("cluster.environment.A=b: c #d", "b: c #d"),
        ("evaluation.answer_check=exact", "exact"),
        ("evaluation.answer_check={labels: [yes, no]}", {"labels": ["yes", "no"]}),
        ("evaluation.answer_checks.answer=math", "math"),
        ("strategies=[sft, sft-tag]", ["sft", "sft-tag"]),
        ("optimization.max_steps=1:30", "1:30"),
        ("optimization.max_steps=null", None),
        ("optimization.learning_rate=1e-3", 1e-3),
        ("optimization.betas=[.9, 0.95]", [0.9, 0.95]),
        ("training.lora={}", {}),
        ("tracking.enabled=false", False),
        ("data.train.limit=7", 7),
    ],
)
def test_the_key_decides_whether_the_value_is_text(override, value):
    assert value_of(override) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimization.max_steps=5 # five", "'# five' would be lost"),
        ("seed=&x 3", "anchors are not allowed"),
        ("seed=[", "override seed: cannot read the value"),
        ("seed=" + "9" * 5000, "override seed: cannot read the value"),
        ("seed=" + "[" * 5000, "more than 50 levels"),
        ("prompt.system=\udcff", "not UTF-8"),
        ("no_equals_sign", "section.key=value"),
        (".=1", "section.key=value"),
        ("a." * 5000 + "b=1", "section.key=value"),
    ],
)
def test_what_cannot_be_read_is_one_short_line(override, message):
    with pytest.raises(ConfigError) as error:
        parse_override(RunConfig, override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
