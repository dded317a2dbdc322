"""Repairs generation configurations that transformers loads with a warning but refuses to save."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig

_SAMPLING = ("temperature", "top_p", "min_p", "top_h", "typical_p", "top_k", "epsilon_cutoff", "eta_cutoff")
_BEAMS = ("early_stopping", "length_penalty")
_CACHE = ("cache_implementation", "cache_config")
_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")


def mend_generation_config(config: "GenerationConfig") -> str:
    """Make a configuration savable without changing its meaning.

    If there are sampling parameters but `do_sample` is not set, it is set to true, which is how servers interpret them.
    Any other parameter that transformers ignores in combination with the others is removed.

    Args:
        config: a `transformers.GenerationConfig`, which is changed.

    Returns:
        A description of the changes; empty if there were none.

    Raises:
        ValueError: transformers refuses it for another reason.
    """
    if _is_savable(config):
        return ""
    changed = []
    if config.do_sample is None and config.temperature != 0 and any(_is_set(config, name) for name in _SAMPLING):
        config.do_sample = True
        changed.append("do_sample=true was set, which its sampling parameters mean")
    if not _is_savable(config):
        dropped = [name for name in _ignored(config) if _is_set(config, name)]
        for name in dropped:
            setattr(config, name, None)
        changed += [f"{', '.join(dropped)} left out, ignored beside the rest"] if dropped else []
    config.validate(strict=True)
    return "; ".join(changed)


def _is_savable(config: "GenerationConfig") -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


def _is_set(config: "GenerationConfig", name: str) -> bool:
    return getattr(config, name, None) is not None


def _ignored(config: "GenerationConfig") -> tuple[str, ...]:
    """Parameters that have no effect in combination with the others."""
    return (
        *(() if config.do_sample else _SAMPLING),
        *(() if (config.num_beams or 1) > 1 else _BEAMS),
        *(_CACHE if config.use_cache is False else ()),
        *(() if config.return_dict_in_generate else _OUTPUTS),
        *(("pad_token_id",) if (config.pad_token_id or 0) < 0 else ()),
    )
