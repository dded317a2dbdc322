"""Scalars of YAML 1.2, and what is no configuration."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftkey_dist.config.yaml_text import YamlError, read_yaml, write_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("0o17", 15),
        ("0x1F", 31),
        ("-12", -12),
        ("+0", 0),
        ("1e-5", 1e-5),
        ("1E3", 1e3),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("1.2.3", "1.2.3"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("True", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("2024-01-31", "2024-01-31"),
        ("2024-99-99", "2024-99-99"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("=", "="),
        ("'1'", "1"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = read_yaml(f"key: {text}\n")["key"]
    assert (read, type(read)) == (value, type(value))
    assert read_yaml(f"[{text}]") == [value]


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_what_is_written_reads_back_the_same(content):
    assert read_yaml(write_yaml(content)) == content


@pytest.mark.parametrize(
    "text", ["1e-5", "0o17", "1:30", "yes", "null", "~", "010", "", "#", "1_000", "2024-01-01", "="]
)
def test_text_that_looks_like_something_else_reads_back_as_text(text):
    assert read_yaml(write_yaml({"key": [text]})) == {"key": [text]}


def test_one_list_in_two_places_is_written_twice():
    labels = ["a", "b"]
    assert read_yaml(write_yaml({"one": labels, "other": labels})) == {"one": labels, "other": labels}


def test_not_a_number():
    assert math.isnan(read_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "'a' appears twice (line 2)"),
        ("a: {b: 1, b: 2}\n", "'b' appears twice (line 1)"),
        ("a: &x [1]\nb: *x\n", "anchors are not allowed (line 1)"),
        ("b: *x\n", "anchors are not allowed (line 1)"),
        ("a: &be brief\n", "in quotes"),
        ("a: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
        ("a: !!binary aGk=\n", "could not determine a constructor"),
        ("a: !!timestamp 2024-01-01\n", "could not determine a constructor"),
        ("? [a]\n: 1\n", "unhashable"),
        ("a: \x07\n", "special characters are not allowed"),
        ("[" * 3000, "more than 50 levels"),
        ("{a: " * 3000, "more than 50 levels"),
        ("- " * 3000, "more than 50 levels"),
        ("\n".join("  " * level + "a:" for level in range(400)), "more than 50 levels"),
        ("a: " + "9" * 5000, "5000 digits"),
        ("a: 1\n---\nb: 2\n", "document"),
    ],
)
def test_hostile_yaml_is_one_line(text, message):
    with pytest.raises(YamlError) as error:
        read_yaml(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
