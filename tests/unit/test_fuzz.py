"""A moment of what `python -m tests.fuzz` does for long, by hypothesis."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_samples_are_read_or_refused(name):
    accepted, _ = fuzz(name, TARGETS[name], 300, random.Random(1))
    assert 0 < accepted < 300


@pytest.mark.parametrize("name", TARGETS)
def test_any_text_is_read_or_refused(name):
    @settings(max_examples=100, deadline=2000, database=None)
    @given(st.text(max_size=400))
    def read(text):
        TARGETS[name].read(text)

    read()
