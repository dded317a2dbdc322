"""The configuration of a tuning: values that keys of one run's configuration take in its trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.problems import Source
from sftkey_dist.config.section import MAX_STEPS, Section, Seed
from sftkey_dist.config.strategy import Name

TUNED_SECTIONS = ("optimization", "key_stage", "training")
"""Other keys change the data or the held-out rows, so that scores of trials could not be compared."""
Positive = Annotated[float, Field(gt=0)]
METRIC = r"^(guard/(score|accuracy|format)|validation/(loss|segments/[^/]+/(nll|token_accuracy)))$"


class SearchSpace(Section):
    """The values of a key, in one of these ways."""

    loguniform: tuple[Positive, Positive] | None = None
    """Lowest and highest value of a number whose logarithm is sampled uniformly."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest value of a number that is sampled uniformly."""
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    """Values of which one is sampled."""
    grid: tuple[Any, ...] | None = Field(None, min_length=1)
    """Values that are all tried, with every value of the other grids."""

    @property
    def listed(self) -> tuple[Any, ...]:
        """The values that are written in the configuration: bounds, or all values."""
        return self.loguniform or self.uniform or self.choice or self.grid or ()

    @model_validator(mode="after")
    def is_one_of_them(self) -> Self:
        """The values must be given in one way, and bounds in their order."""
        if len(self.model_fields_set) != 1 or not self.listed:
            raise ValueError("give one of loguniform, uniform, choice and grid")
        bounds = self.loguniform or self.uniform
        if bounds and bounds[0] >= bounds[1]:
            raise ValueError(f"the lowest value comes first, and the highest above it; got {list(bounds)}")
        return self


class TuneConfig(Section):
    """A tuning: trials of one strategy with sampled values of some keys. The rest of the file is the configuration that
    the trials change."""

    keys: dict[str, SearchSpace] = Field(min_length=1)
    """Keys below `optimization`, `key_stage` and `training`, with their values, for example
    `{key_stage.optimization.learning_rate: {loguniform: [1e-7, 1e-4]}}`."""
    strategy: Name = "sftkey-tag"
    """The strategy that is tuned: one of `strategies`. Scores are those of its last stage."""
    num_trials: int | None = Field(None, ge=1, le=100_000)
    """Number of trials. Each combination of the grids is tried equally often. Default, for grids alone: once."""
    max_concurrent: int | None = Field(None, ge=1, le=10_000)
    """Number of trials that run at the same time. Default: as many as the cluster has room for, with
    `cluster.num_workers` workers each."""
    seed: Seed = 0
    """Seed of the sampled values."""
    metric: str = Field("guard/score", pattern=METRIC)
    """What is compared, by its name in MLflow: `guard/score`, `guard/accuracy`, `guard/format`, the nll or
    token_accuracy of a segment, such as `validation/segments/answer/nll`, or, where all trials have the same loss
    weights and objectives, `validation/loss`. Losses and nll are minimised, everything else is maximised."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops trials early that are worse than others after the same number of steps (arXiv:1810.05934). `none`
    runs every trial to its end."""
    grace_period_steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """For `asha`: optimizer steps of the last stage before which no trial is stopped. Default: the first measurement of
    the metric after the start of the stage."""
    reduction_factor: int = Field(3, ge=2, le=100)
    """For `asha`: of the trials that come so far, one in this many goes on; and how much later the next such decision
    is."""

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether lower or higher values of the metric are better."""
        return "min" if self.metric.endswith(("loss", "nll")) else "max"

    @model_validator(mode="after")
    def keys_leave_the_data_alone(self) -> Self:
        """Trials must be measured on the same rows."""
        for key in self.keys:
            if key.partition(".")[0] not in TUNED_SECTIONS:
                raise ValueError(
                    f"keys: {key} cannot be tuned, only keys of {', '.join(TUNED_SECTIONS)}: others change what is "
                    f"trained on or measured, and their trials could not be compared"
                )
        return self

    @model_validator(mode="after")
    def no_key_is_below_another(self) -> Self:
        """Of two values for a key, one would have no effect."""
        for key in self.keys:
            for inner in (other for other in self.keys if other.startswith(f"{key}.")):
                raise ValueError(f"keys: {inner} is below {key}, which is tuned as well; remove one of them")
        return self

    @model_validator(mode="after")
    def trials_are_counted(self) -> Self:
        """Sampled values need a number of trials."""
        if self.num_trials is None and any(space.grid is None for space in self.keys.values()):
            raise ValueError("num_trials is missing: how many trials sample their values?")
        return self


@dataclass(frozen=True)
class Tuning:
    """A tuning with the configuration that its trials change.

    Attributes:
        folder: folder of all its trials, which is the file's ``run_dir``.
        settings: the tuning's own settings.
        content: the keys of the configuration without those of the tuning.
        sources: where these keys come from, for messages.
    """

    folder: Path
    settings: TuneConfig
    content: Mapping[str, Any]
    sources: tuple[Source, ...]
