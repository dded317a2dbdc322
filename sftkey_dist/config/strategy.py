"""Optimisation, and the stages of strategies."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator

from sftkey_dist.config.section import MOST_STEPS, Section, zero_or_from
from sftkey_dist.contract import Form

PresetName = Literal["sft", "sft-tag", "key-tag", "sftkey-tag"]
Share = Annotated[float, Field(ge=0, lt=1)]
LossWeight = Annotated[float, zero_or_from(1e-6), Field(ge=0, le=1_000_000)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class OptimizationConfig(Section):
    """Optimisation of one stage."""

    global_batch_size: int = Field(32, ge=1, le=100_000_000)
    """Examples per optimizer step, over all ranks and micro-batches."""
    num_epochs: int = Field(1, ge=1, le=1_000_000)
    """Passes over the training data."""
    look_ahead_steps: int = Field(4, ge=1, le=10_000)
    """Neighbouring steps that may exchange examples to level cost and loss tokens between them; 1 keeps the
    shuffled order as it is."""
    max_steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    """Stop after so many optimizer steps, if that comes first."""
    learning_rate: float = Field(1e-5, ge=1e-12, le=100)
    """Peak learning rate of AdamW."""
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """Final learning rate of the cosine, as a share of the peak."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps with linearly rising learning rate."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled weight decay of matrices; norms and biases have none."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's moment decays."""
    epsilon: float = Field(1e-8, ge=1e-20, le=1)
    """AdamW's epsilon."""
    max_grad_norm: Annotated[float, zero_or_from(1e-6)] = Field(1.0, ge=0, le=1e6)
    """Gradients are clipped to this global L2 norm; 0 turns clipping off."""


class OptimizationOverrides(Section):
    """Keys of `optimization` that a stage sets differently; absent ones are inherited."""

    global_batch_size: int | None = Field(None, ge=1, le=100_000_000)
    """See `optimization`."""
    num_epochs: int | None = Field(None, ge=1, le=1_000_000)
    """See `optimization`."""
    max_steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    """See `optimization`."""
    learning_rate: float | None = Field(None, ge=1e-12, le=100)
    """See `optimization`."""
    min_learning_rate_ratio: float | None = Field(None, ge=0, le=1)
    """See `optimization`."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """See `optimization`."""
    weight_decay: float | None = Field(None, ge=0, le=100)
    """See `optimization`."""

    @model_validator(mode="after")
    def null_is_not_inherited(self) -> Self:
        """A null that means nothing."""
        for key in sorted(self.model_fields_set - {"max_steps"}):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: null is no value; leave the key out to inherit that of optimization")
        return self

    @model_serializer(mode="wrap")
    def only_what_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is written must read back the same: an absent key is inherited, a null one is not."""
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    def applied_to(self, base: OptimizationConfig) -> OptimizationConfig:
        """The base with the keys that are set here replaced; `max_steps: null` lifts an inherited bound."""
        return OptimizationConfig.model_validate(base.model_dump() | self.model_dump(exclude_unset=True))


class StageConfig(Section):
    """One stage of a strategy of your own: a weight per segment and its optimisation."""

    name: Name
    """Short name for folders and tables, e.g. `full`."""
    weights: dict[str, LossWeight]
    """Loss weight per segment: names of the contract's segments, `tags`, `<segment>.open`, `<segment>.close`
    and `end_of_turn`. What is not named has weight 0."""
    optimization: OptimizationOverrides = OptimizationOverrides()
    """What this stage does differently from `optimization`."""
    stop_gradient_prefix: bool = False
    """See `key_stage`."""


class StrategyConfig(Section):
    """A strategy of your own: a list of stages over one form of the response."""

    name: Name
    """Name in folders, tables and MLflow."""
    form: Form = Form.TAGGED
    """Whether the response is trained with tags or in its plain convention."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Stages in order; each continues from the weights of the one before."""


class KeyStageConfig(Section):
    """What a key stage trains besides the text inside the key tags (the paper's choice: nothing)."""

    tags: bool = False
    """Also the opening and closing tags of key segments."""
    end_of_turn: bool = False
    """Also the end-of-turn token."""
    stop_gradient_prefix: bool = False
    """Compute prompt and reasoning without gradient, and run the backward pass over the answers alone: faster, and
    another objective than the paper's. Needs `model.attention: packed`. (Not for `key-tag`.)"""
    learning_rate_ratio: float = Field(0.05, ge=1e-6, le=1)
    """Peak learning rate of a key stage that continues from an earlier stage, over `optimization.learning_rate`. At a
    quarter and more small models forgot how to respond (RESULTS.md)."""
    optimization: OptimizationOverrides = OptimizationOverrides()
    """What else a key stage that continues from an earlier stage does differently from `optimization`; a learning rate
    here wins over the ratio."""
