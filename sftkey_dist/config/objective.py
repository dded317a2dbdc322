"""The objective of a token: what a stage minimises instead of the negative log-likelihood."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sftkey_dist.config.section import Section, zero_or_from

_KEYS: dict[str, frozenset[str]] = {
    "nll": frozenset(),
    "dft": frozenset(),
    "power": frozenset({"exponent"}),
    "entropy": frozenset({"exponent"}),
}


class Objective(Section):
    """The loss of a token with probability p, in nats. Weights in front of the logarithm carry no gradient."""

    kind: Literal["nll", "dft", "power", "entropy"] = "nll"
    """`nll`: -log p. `dft`: -p log p, with p as a weight (arXiv:2508.05629). `power`: (1 - p^exponent) / exponent,
    which approaches `nll` for small exponents and is 1 - p for 1 (arXiv:2510.00526). `entropy`: -H^exponent log p,
    where H is the entropy of the 20 most likely tokens, divided by log 20 (EAFT, arXiv:2601.02151)."""
    exponent: float = Field(1.0, ge=0.01, le=100)
    """Exponent of `power`, at most 1, and of `entropy`."""
    min_probability: Annotated[float, zero_or_from(1e-6)] = Field(0.0, ge=0, lt=1)
    """Tokens with a lower probability have no loss (arXiv:2601.09195). The mean still counts them."""

    @model_validator(mode="after")
    def keys_belong_to_the_kind(self) -> Self:
        """A key that the kind would ignore is an error."""
        if "exponent" in self.model_fields_set - _KEYS[self.kind]:
            raise ValueError(f"kind {self.kind} has no exponent")
        if self.kind == "power" and self.exponent > 1:
            raise ValueError(f"exponent of kind power must be at most 1, got {self.exponent:g}")
        return self

    @model_serializer(mode="wrap")
    def only_what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the exponent of kinds without one, so that reading the result back gives the same."""
        return {key: value for key, value in handler(self).items() if key != "exponent" or _KEYS[self.kind]}

    @property
    def is_nll(self) -> bool:
        """Whether the loss is the negative log-likelihood of every token."""
        return self.kind == "nll" and not self.min_probability


def _by_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Objectives = dict[str, Annotated[Objective, BeforeValidator(_by_kind)]]
"""Objectives by segment; a text is short for a kind."""
