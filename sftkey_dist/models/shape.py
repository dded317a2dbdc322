"""Sizes of a model according to its configuration, without loading its weights."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import torch
import transformers

from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.models.weight_files import weight_files
from sftkey_dist.sampler import AttentionWindow, CostModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_FACTORS_OF_LOGITS = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"""Names that architectures of transformers use for a factor of the logits."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
_ROUTED_TO = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
_WIDTHS_OF_EXPERTS = ("moe_intermediate_size", "expert_ffn_hidden_size")
_WIDTHS_OF_SHARED = ("shared_expert_intermediate_size", "shared_intermediate_size")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
"""Names that architectures of transformers use for the sizes of a mixture of experts."""
_STACKED = 3
_WITH_WINDOW = "sliding_attention"
"""The kind of layers with a window in the configurations of transformers."""


def read_shape(folder: Path, trust_remote_code: bool = False) -> object:
    """Read the configuration of the decoder in a model folder.

    Raises:
        ModelError: It cannot be read.
    """
    return read_config(folder, trust_remote_code).get_text_config()


def read_config(folder: Path, trust_remote_code: bool) -> "PreTrainedConfig":
    """Read the whole configuration of a model folder.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises unrelated classes
        raise ModelError(f"{folder}: cannot read config.json: {loading_problem(error)}") from error


def scales_logits(config: "PreTrainedConfig") -> bool:
    """Whether a model bounds or scales the logits after its output projection, as Gemma 2, Cohere and Granite do."""
    text = config.get_text_config()
    factors = (getattr(text, name, None) for name in _FACTORS_OF_LOGITS)
    return bool(getattr(text, "final_logit_softcapping", None)) or any(factor not in (None, 1) for factor in factors)


def num_positions(config: "PreTrainedConfig") -> int | None:
    """Tokens of the longest text that a model's table of positions has an entry for; None without a table."""
    text = config.get_text_config()
    if any(getattr(text, name, None) for name in ("rope_parameters", "rope_scaling", "rope_theta")):
        return None
    most: int | None = getattr(text, "max_position_embeddings", None)
    return most if most is not None and _has_table_of_positions(config) else None


def _has_table_of_positions(config: "PreTrainedConfig") -> bool:
    """Whether positions are embedded. Some models have none, and their configuration gives a length nevertheless."""
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception:  # of code from the model's folder, or of an architecture with packages of its own
        return False
    tables = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    return any(name.endswith("wpe") or "position" in name for name in tables)


def count_parameters(folder: Path) -> int:
    """Number of parameters in a model folder, according to the headers of its files.

    Raises:
        ModelError: A file cannot be read.
    """
    total = 0
    for file in weight_files(folder):
        try:
            with safetensors.safe_open(file, framework="np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{file}: cannot be read ({error}); download or save the model again") from error
    return total


def decoder_cost(config: "PreTrainedConfig") -> CostModel:
    """The cost model of a decoder with this configuration; sizes that it does not contain have common defaults."""
    text = config.get_text_config()
    num_heads = int(text.num_attention_heads)
    return CostModel.for_decoder(
        hidden_size=int(text.hidden_size),
        intermediate_size=_active_width(text),
        num_heads=num_heads,
        num_kv_heads=key_value_heads_of(text),
        head_dim=head_dim_of(text),
        window=attention_window_of(text),
    )


def attention_window_of(text: "PreTrainedConfig") -> AttentionWindow | None:
    """The window of a decoder's attention, according to its configuration; None if no layer has one.

    Architectures whose layers differ list the kind of each; in others the window is that of all layers.
    """
    tokens = getattr(text, "sliding_window", None)
    if not tokens or not getattr(text, "use_sliding_window", True):
        return None
    kinds = getattr(text, "layer_types", None) or [_WITH_WINDOW] * int(text.num_hidden_layers)
    layers = sum(kind == _WITH_WINDOW for kind in kinds)
    return AttentionWindow(int(tokens), layers, len(kinds)) if layers else None


def decoder_layers(model: "PreTrainedModel") -> torch.nn.ModuleList:
    """The decoder's layers: the first list of modules with the right length, whatever its name.

    Raises:
        ModelError: There is none.
    """
    number = int(model.config.get_text_config().num_hidden_layers)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return module
    raise ModelError(f"{type(model).__name__} has no list of {number} layers")


def key_value_heads_of(text: "PreTrainedConfig") -> int:
    """Number of heads of keys and values, according to a decoder's configuration."""
    return int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)


def head_dim_of(text: "PreTrainedConfig") -> int:
    """Dimension of an attention head, according to a decoder's configuration."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def attention_dims_of(text: "PreTrainedConfig") -> tuple[int, int]:
    """Dimensions of a head's queries and keys, and of its values, which differ in latent attention (DeepSeek-V2)."""
    value = getattr(text, "v_head_dim", None)
    if value and getattr(text, "qk_nope_head_dim", None):
        return int(text.qk_nope_head_dim) + int(text.qk_rope_head_dim), int(value)
    return head_dim_of(text), head_dim_of(text)


def shape_of(parameter: torch.Tensor) -> tuple[int, ...]:
    """Shape of the whole parameter, even if ZeRO-3 has partitioned it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def active_share(text: "PreTrainedConfig") -> float:
    """Share of a layer's routed experts that process a token; 1 for a dense decoder."""
    experts = num_experts(text)
    return min(1.0, experts_per_token(text) / experts) if experts else 1.0


def num_experts(text: object) -> int:
    """Number of routed experts per layer; 0 for a dense decoder."""
    return _first_of(text, _EXPERTS, default=0)


def experts_per_token(text: object) -> int:
    """Number of routed experts that process a token in a layer."""
    return _first_of(text, _ROUTED_TO, default=num_experts(text))


def is_of_experts(name: str, shape: tuple[int, ...], text: object) -> bool:
    """Whether a parameter belongs to routed experts, by its name or because it stacks one matrix per expert."""
    experts = num_experts(text)
    return bool(experts) and ("experts" in name.split(".") or (len(shape) == _STACKED and shape[0] == experts))


def _active_width(text: "PreTrainedConfig") -> int:
    """Total width of the MLPs that process a token, including all experts that it is routed to."""
    dense = int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    experts = num_experts(text)
    if not experts:
        return dense
    each = _first_of(text, _WIDTHS_OF_EXPERTS, default=dense)
    shared = _first_of(text, _WIDTHS_OF_SHARED, default=each * _first_of(text, _SHARED, default=0))
    return round(each * experts * active_share(text)) + shared


def _first_of(text: object, names: Sequence[str], default: int) -> int:
    """The first non-zero integer that a configuration has under one of these names."""
    found = (getattr(text, name, None) for name in names)
    return next((int(number) for number in found if isinstance(number, int) and number), default)
