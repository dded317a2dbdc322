"""A trained model decodes as it was evaluated, by whatever library loads its folder."""

import pytest
from transformers import GenerationConfig

from sftkey_dist.models.generation_config import greedy_until


@pytest.mark.parametrize(
    "parameters",
    [
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1},
        {"temperature": 0.6, "top_p": 0.95},
        {"length_penalty": 2.0},
        {"suppress_tokens": [3], "min_length": 4},
        {},
    ],
)
def test_what_would_change_responses_is_left_out_and_named(tmp_path, parameters):
    config, left_out = greedy_until(7, GenerationConfig(bos_token_id=1, pad_token_id=0, eos_token_id=2, **parameters))
    assert left_out == tuple(sorted(parameters))
    config.save_pretrained(tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert saved.to_diff_dict().keys() == {"bos_token_id", "pad_token_id", "eos_token_id", "transformers_version"}
    assert (saved.bos_token_id, saved.pad_token_id, saved.eos_token_id) == (1, 0, [7, 2])


@pytest.mark.parametrize(("ends", "expected"), [(None, [7]), (7, [7]), ([9, 7, 3], [7, 3, 9])])
def test_responses_end_with_the_turn_first(ends, expected):
    config, _ = greedy_until(7, GenerationConfig(eos_token_id=ends))
    assert config.eos_token_id == expected


def test_what_changes_no_response_is_not_named():
    base = GenerationConfig(use_cache=True, output_attentions=False, output_hidden_states=False, eos_token_id=2)
    assert greedy_until(7, base)[1] == ()


def test_a_padding_token_that_is_none_is_left_out():
    config, left_out = greedy_until(7, GenerationConfig(pad_token_id=-1))
    assert (config.pad_token_id, left_out) == (None, ("pad_token_id",))
