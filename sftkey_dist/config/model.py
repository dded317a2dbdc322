"""The base model: loaded, or created with random weights."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.paths import Location
from sftkey_dist.config.section import Section

Attention = Literal["packed", "packed_sdpa", "sdpa", "flash_attention_2"]
PACKED_ATTENTION: frozenset[Attention] = frozenset({"packed", "packed_sdpa"})
"""Those that are our own: they keep the keys of a prefix, and exchange tokens for heads."""


class EmbeddedModelConfig(Section):
    """A small model of the Qwen3 architecture with random initial weights, and a tokenizer that is trained on the
    training data."""

    vocab_size: int = Field(1024, ge=300, le=1_000_000)
    """Maximum size of the byte-level BPE vocabulary."""
    hidden_size: int = Field(128, ge=16, le=65_536)
    """Width of the residual stream."""
    intermediate_size: int = Field(384, ge=16, le=1_000_000)
    """Width of the MLP."""
    num_layers: int = Field(4, ge=1, le=1000)
    """Number of decoder layers."""
    num_heads: int = Field(4, ge=1, le=1024)
    """Number of query heads."""
    num_kv_heads: int = Field(2, ge=1, le=1024)
    """Number of key/value heads (grouped-query attention)."""
    max_position_embeddings: int = Field(1024, ge=64, le=10_000_000)
    """Sequence length, in tokens, that the model's configuration gives to servers. Training does not end there, because
    positions are rotary."""

    @model_validator(mode="after")
    def heads_divide(self) -> Self:
        """The number of heads must divide the width, and the number of key/value heads the number of heads."""
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must divide hidden_size={self.hidden_size} and be a multiple of "
                f"num_kv_heads={self.num_kv_heads}"
            )
        if self.hidden_size // self.num_heads % 2:
            pairs = self.hidden_size // self.num_heads // 2
            raise ValueError(
                f"hidden_size={self.hidden_size}: heads of {2 * pairs + 1} cannot be rotated in pairs; set hidden_size="
                f"{2 * pairs * self.num_heads} or {2 * (pairs + 1) * self.num_heads}, or another num_heads"
            )
        return self


class ModelConfig(Section):
    """The base model that all strategies start from."""

    path: Location | None = None
    """Folder with a Hugging Face model, or a model id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Pin it for a reproducible run."""
    embedded: EmbeddedModelConfig | None = None
    """Create a small model instead of loading one. Give either this or `path`."""
    attention: Attention = "packed"
    """Attention implementation for packed rows in training. `packed`: torch's variable-length FlashAttention on
    accelerators in bfloat16, and otherwise causal SDPA for each example separately; `packed_sdpa`: always the latter;
    `sdpa`: SDPA with a dense block mask; `flash_attention_2`: the flash-attn package, which needs a GPU."""
    trust_remote_code: bool = False
    """Run Python code from the model repository. Leave it off unless you have read that code."""

    @model_validator(mode="after")
    def exactly_one_source(self) -> Self:
        """A model is either loaded or created."""
        if (self.path is None) == (self.embedded is None):
            raise ValueError("give exactly one of model.path and model.embedded")
        return self
