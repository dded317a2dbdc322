"""Configuration of the optimisation and of the stages of a strategy."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from sftkey_dist.config.objective import Objectives
from sftkey_dist.config.own_data import OwnDataConfig
from sftkey_dist.config.section import (
    MAX_LOSS_WEIGHT,
    MAX_STEPS,
    MIN_LOSS_WEIGHT,
    Section,
    SectionWithNewerKeys,
    zero_or_from,
)
from sftkey_dist.contract import Form

PresetName = Literal["sft", "sft-tag", "key-tag", "sftkey-tag"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
Share = Annotated[float, Field(ge=0, lt=1)]
LossWeight = Annotated[float, zero_or_from(MIN_LOSS_WEIGHT), Field(ge=0, le=MAX_LOSS_WEIGHT)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class MuonConfig(Section):
    """Muon, which makes every update of a matrix orthogonal (https://kellerjordan.github.io/posts/muon/), for the
    matrices of the decoder's layers; embeddings, output projection, norms, biases and stacked experts keep AdamW."""

    learning_rate_ratio: float = Field(ge=1e-6, le=1e6)
    """Learning rate of Muon, as a multiple of `optimization.learning_rate` in every step. An element changes by about
    the learning rate with AdamW, and by the learning rate / √(inputs of the layer) with Muon."""
    momentum: Share = 0.95
    """Decay rate of the momentum, in Nesterov's form."""


class OptimizationConfig(Section):
    """Optimisation of one stage."""

    global_batch_size: int = Field(32, ge=1, le=100_000_000)
    """Examples per optimizer step, over all ranks and micro-batches."""
    num_epochs: int = Field(1, ge=1, le=1_000_000)
    """Passes over the training data."""
    look_ahead_steps: int = Field(4, ge=1, le=10_000)
    """Number of consecutive steps that may exchange examples, so that compute cost and loss tokens are balanced between
    them. 1 keeps the shuffled order as it is."""
    max_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Maximum number of optimizer steps; the stage ends after it or after `num_epochs`, whichever comes first."""
    learning_rate: float = Field(1e-5, ge=1e-12, le=100)
    """Peak learning rate of AdamW."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up: `cosine` and `linear` fall to the minimum at the last step, `constant` stays at
    the peak, and `wsd` (warmup, stable, decay) stays there and then falls linearly in the last steps."""
    decay_ratio: float = Field(0.2, gt=0, le=1)
    """For `schedule: wsd`: fraction of the steps in which the learning rate falls."""
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """Final learning rate as a fraction of the peak; `constant` has none."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Fraction of the steps in which the learning rate rises linearly."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled weight decay, applied to matrices but not to norms and biases."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay rates of AdamW's two moment estimates."""
    epsilon: float = Field(1e-8, ge=1e-20, le=1)
    """Epsilon of AdamW."""
    max_grad_norm: Annotated[float, zero_or_from(1e-6)] = Field(1.0, ge=0, le=1e6)
    """Maximum global L2 norm of the gradient, to which it is clipped; 0 turns clipping off."""

    router_loss_weight: LossWeight = 0.0
    """For mixtures of experts: factor of the loss that balances their routers over all tokens of a step, which is added
    to the loss. Architectures suggest one as `router_aux_loss_coef`, usually 0.001 to 0.02. It takes one more forward
    pass a step. 0, as in transformers, leaves routers to the other losses."""
    muon: MuonConfig | None = None
    """Update the matrices of the decoder's layers by Muon, for example `{learning_rate_ratio: 20}`; default: AdamW for
    all weights."""

    @model_serializer(mode="wrap")
    def newer_keys_only_where_they_are_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer keys that are not used, so that digests equal those from before the keys existed."""
        used = {
            "schedule": self.schedule != "cosine",
            "decay_ratio": self.schedule == "wsd",
            "router_loss_weight": self.router_loss_weight > 0,
            "muon": self.muon is not None,
        }
        return {key: value for key, value in handler(self).items() if used.get(key, True)}


class OptimizationOverrides(Section):
    """Keys of `optimization` that a stage overrides; all others are inherited."""

    global_batch_size: int | None = Field(None, ge=1, le=100_000_000)
    """See `optimization`."""
    num_epochs: int | None = Field(None, ge=1, le=1_000_000)
    """See `optimization`."""
    max_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """See `optimization`."""
    learning_rate: float | None = Field(None, ge=1e-12, le=100)
    """See `optimization`."""
    schedule: Schedule | None = None
    """See `optimization`."""
    decay_ratio: float | None = Field(None, gt=0, le=1)
    """See `optimization`."""
    min_learning_rate_ratio: float | None = Field(None, ge=0, le=1)
    """See `optimization`."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """See `optimization`."""
    weight_decay: float | None = Field(None, ge=0, le=100)
    """See `optimization`."""
    router_loss_weight: LossWeight | None = None
    """See `optimization`."""

    @model_validator(mode="after")
    def null_is_not_inherited(self) -> Self:
        """Only `max_steps` may be null; for any other key null has no meaning."""
        for key in sorted(self.model_fields_set - {"max_steps"}):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: null is not allowed; leave the key out to inherit it from optimization")
        return self

    @model_serializer(mode="wrap")
    def only_what_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write only the keys that are set, so that reading them back gives the same: an absent key is inherited."""
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    def applied_to(self, base: OptimizationConfig) -> OptimizationConfig:
        """The base, with the keys that are set here replaced; `max_steps: null` removes an inherited limit."""
        return OptimizationConfig.model_validate(base.model_dump() | self.model_dump(exclude_unset=True))


class ReplayConfig(Section):
    """Steps of a stage in which it trains what the stage before it trains, so that it does not unlearn that."""

    every: int = Field(ge=2, le=MAX_STEPS)
    """Every so many steps, one uses the loss weights, the normalisation and the objectives of the stage before."""


class AnchorConfig(Section):
    """A penalty on how far predictions move from those of the model that the stage starts from."""

    weight: float = Field(ge=MIN_LOSS_WEIGHT, le=MAX_LOSS_WEIGHT)
    """Factor of the penalty, which is added to the loss: the mean over the anchored tokens of KL(start || now), in
    nats."""
    segments: tuple[str, ...] = ()
    """Segments whose tokens are anchored: names as in `weights`, without `prompt`. Default: everything in the response
    that the stage does not train."""
    top_k: int = Field(32, ge=1, le=1024)
    """Number of most likely tokens of the starting model that are kept at every position, at 8 bytes each; all other
    tokens together count as one."""


def _different(parts: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(parts)) < len(parts):
        raise ValueError(f"each part must be there once, got {list(parts)}")
    return parts


PartsOfUpdate = Annotated[
    tuple[Annotated[float, Field(ge=0.001, lt=1)], ...], Field(max_length=20), AfterValidator(_different)
]
"""Fractions of what a stage changes in the weights."""


class StageConfig(SectionWithNewerKeys):
    """One stage of a custom strategy: a loss weight per segment, and how it is optimised."""

    newer_keys = frozenset({"normalize", "objective", "replay", "interpolate", "anchor", "data", "project_conflicts"})

    name: Name
    """Short name used in folders and tables, e.g. `full`."""
    weights: dict[str, LossWeight]
    """Loss weight per segment. Keys are the names of the contract's segments, `tags`, `<segment>.open`,
    `<segment>.close`, `end_of_turn` and `prompt`. Anything that is not named has weight 0. `prompt` stands for
    everything before the response, with earlier turns and the chat template's tokens, but without the first token, as
    nothing predicts it (arXiv:2507.07817)."""
    optimization: OptimizationOverrides = OptimizationOverrides()
    """Keys of `optimization` that this stage overrides."""
    stop_gradient_prefix: bool = False
    """See `key_stage.stop_gradient_prefix`."""
    normalize: Literal["tokens", "segments"] = "tokens"
    """`tokens`: the loss is the weighted mean over all tokens of a step, so that long segments count for more.
    `segments`: it is the sum over segments of weight · mean over the segment's tokens (arXiv:2510.16686). Tags count
    with their segment, and the end-of-turn token with the last one."""
    objective: Objectives = Field(default_factory=dict)
    """Objective per segment, with the same keys as `weights`; `all` stands for what is not named. The default is `nll`.
    A kind is enough where it has no further keys: `{reasoning: dft, answer: nll}`."""
    replay: ReplayConfig | None = None
    """Steps in which this stage trains as the one before it; default: none. The first stage cannot have any."""
    interpolate: PartsOfUpdate = ()
    """Models between the start of the stage and its end that the guard also scores, by the fraction of the stage's
    update that they have, for example `[0.25, 0.5, 0.75]` (arXiv:2109.01903). The guard keeps the best model of all, so
    that `validation.guard` must be set; default: none. The first stage cannot have any."""
    anchor: AnchorConfig | None = None
    """Penalty on unlearning what the stage does not train; default: none. The predictions of the model that the stage
    starts from are computed once for every example before the first step."""
    data: OwnDataConfig | None = None
    """Responses of the model itself to train, for example `{from: previous, samples: 4}`; default: those of the
    references. The first stage cannot have any."""
    project_conflicts: bool = False
    """Take the gradient of every segment's part of the loss by itself. Where two of them conflict (their inner product
    is below 0), each loses its projection on the other before they are added (PCGrad, arXiv:2001.06782). A step takes a
    forward and a backward pass per segment, and every rank holds its share of all these gradients in the host's memory:
    4 bytes for a segment and a weight. At least two segments must be trained."""


class StrategyConfig(Section):
    """A custom strategy: a list of stages that train one form of the response."""

    name: Name
    """Name used in folders, tables and MLflow."""
    form: Form = Form.TAGGED
    """Form of the response that is trained: `tagged`, in the contract's container, or `untagged`, with delimiters
    only."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Stages in order. Each one continues from the weights of the previous one."""


class KeyStageConfig(SectionWithNewerKeys):
    """The preset key stage. It trains the text inside the tags of key segments and, as in the paper, nothing else by
    default."""

    newer_keys = frozenset({"replay", "interpolate", "anchor", "data", "project_conflicts"})

    tags: bool = False
    """Also train the opening and closing tags of key segments."""
    end_of_turn: bool = False
    """Also train the end-of-turn token."""
    stop_gradient_prefix: bool = False
    """Compute prompt and reasoning without gradient, and run the backward pass over the answers only. This is faster,
    but its objective is not the paper's. It needs `model.attention: packed` or `packed_sdpa`, and does not apply to
    `key-tag`."""
    learning_rate_ratio: float = Field(0.05, ge=1e-6, le=1)
    """Peak learning rate of a key stage that continues from an earlier stage, as a fraction of
    `optimization.learning_rate`. At a fifth and above, small models forgot how to respond unless `replay` or the guard
    prevented it (RESULTS.md)."""
    optimization: OptimizationOverrides = OptimizationOverrides()
    """Keys of `optimization` that a key stage overrides when it continues from an earlier stage. A learning rate given
    here takes precedence over `learning_rate_ratio`."""
    replay: ReplayConfig | None = None
    """Steps in which a key stage that continues from an earlier stage trains the whole response, as that one does;
    default: none."""
    interpolate: PartsOfUpdate = ()
    """Models between the start and the end of a key stage that continues from an earlier stage, which the guard scores
    too; see `strategies.stages.interpolate`."""
    anchor: AnchorConfig | None = None
    """Penalty on unlearning how to respond, in a key stage that continues from an earlier stage; see
    `strategies.stages.anchor`."""
    data: OwnDataConfig | None = None
    """Responses of the model itself to train, in a key stage that continues from an earlier stage; see
    `strategies.stages.data`."""
    project_conflicts: bool = False
    """Project the conflicting gradients of several key segments on each other, in a key stage that continues from an
    earlier stage; see `strategies.stages.project_conflicts`."""
