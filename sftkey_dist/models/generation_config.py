"""The generation configuration of a trained model, with which it decodes as it was evaluated."""

from transformers import GenerationConfig

_TOKENS = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
_WITHOUT_EFFECT = frozenset(
    {
        *("eos_token_id", "transformers_version", "use_cache", "cache_implementation", "cache_config"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
    }
)
"""What changes no response, and the end tokens, which are kept."""


def greedy_until(end_of_turn_id: int, base: GenerationConfig) -> tuple[GenerationConfig, tuple[str, ...]]:
    """A configuration that takes the likeliest token each time, until the token that ends a turn.

    A base model's own end-of-sequence token is often another one, and generation would run past the answer. A penalty
    or a temperature of the base model would make whoever loads the folder generate other responses than the evaluation.

    Args:
        end_of_turn_id: id of the token with which responses were taught to end.
        base: configuration of the base model, whose other end tokens and special tokens are kept.

    Returns:
        The configuration, and the names of what the base model's sets and would change responses.
    """
    kept = {name: value for name in _TOKENS if (value := getattr(base, name, None)) is not None and value >= 0}
    ends = base.eos_token_id
    others = {ends} if isinstance(ends, int) else set(ends or ())
    config = GenerationConfig(**kept, eos_token_id=[end_of_turn_id, *sorted(others - {end_of_turn_id})])
    left_out = base.to_diff_dict().keys() - kept.keys() - _WITHOUT_EFFECT
    return config, tuple(sorted(name for name in left_out if not name.startswith("_")))
