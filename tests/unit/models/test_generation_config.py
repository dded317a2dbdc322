import pytest
from transformers import GenerationConfig

from sftkey_dist.models.generation_config import mend_generation_config


def saved_again(config: GenerationConfig, folder) -> GenerationConfig:
    config.save_pretrained(folder)
    return GenerationConfig.from_pretrained(folder)


@pytest.mark.parametrize("parameters", [{"temperature": 0.7, "top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1}])
def test_sampling_parameters_mean_that_it_samples(tmp_path, parameters):
    """Servers sample by them whatever transformers does."""
    config = GenerationConfig(**parameters)
    assert mend_generation_config(config) == "do_sample=true was set, which its sampling parameters mean"
    mended = saved_again(config, tmp_path)
    assert mended.do_sample is True
    assert {name: getattr(mended, name) for name in parameters} == parameters


@pytest.mark.parametrize(
    ("parameters", "dropped"),
    [
        ({"do_sample": False, "temperature": 0.7}, "temperature"),
        ({"temperature": 0.0}, "temperature"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"use_cache": False, "cache_implementation": "static"}, "cache_implementation"),
        ({"output_scores": True}, "output_scores"),
        ({"pad_token_id": -1}, "pad_token_id"),
    ],
)
def test_what_has_no_effect_is_left_out_and_named(tmp_path, parameters, dropped):
    config = GenerationConfig(**parameters)
    assert mend_generation_config(config) == f"{dropped} left out, ignored beside the rest"
    mended = saved_again(config, tmp_path)
    assert mended.do_sample is not True
    assert getattr(mended, dropped) is None


@pytest.mark.parametrize("parameters", [{}, {"do_sample": True, "temperature": 0.6}, {"num_beams": 4}])
def test_what_can_be_saved_stays_as_it_is(parameters):
    config = GenerationConfig(**parameters)
    before = config.to_dict()
    assert mend_generation_config(config) == ""
    assert config.to_dict() == before


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="suppress_tokens"):
        mend_generation_config(GenerationConfig(suppress_tokens=[3], forced_eos_token_id=3))
