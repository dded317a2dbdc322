"""The base model: loaded, or made from nothing."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.paths import Location
from sftkey_dist.config.section import Section

Attention = Literal["packed", "packed_sdpa", "sdpa", "flash_attention_2"]


class EmbeddedModelConfig(Section):
    """A small Qwen3-architecture model made from nothing, with a tokenizer built from the training data."""

    vocab_size: int = Field(1024, ge=300, le=1_000_000)
    """Upper bound of the byte-level BPE vocabulary."""
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
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def heads_divide(self) -> Self:
        """Heads must divide the width, and key/value heads the heads."""
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must divide hidden_size={self.hidden_size} and be a multiple of "
                f"num_kv_heads={self.num_kv_heads}"
            )
        return self


class ModelConfig(Section):
    """The base model all strategies start from."""

    path: Location | None = None
    """Folder with a Hugging Face model, or an id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; pin it for a reproducible run."""
    embedded: EmbeddedModelConfig | None = None
    """Make a small model instead of loading one; give this or `path`."""
    attention: Attention = "packed"
    """Training attention over packed rows. `packed`: torch's variable-length FlashAttention on accelerators in
    bfloat16, causal SDPA example by example elsewhere; `packed_sdpa`: the latter everywhere; `sdpa`: a dense block
    mask; `flash_attention_2`: the flash-attn package (GPU)."""
    trust_remote_code: bool = False
    """Run code that the model repository ships. Off unless you have read that code."""

    @model_validator(mode="after")
    def exactly_one_source(self) -> Self:
        """A model is loaded or made, not both."""
        if (self.path is None) == (self.embedded is None):
            raise ValueError("give exactly one of model.path and model.embedded")
        return self
