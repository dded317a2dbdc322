"""The configuration of a study: variants of one run's configuration, each with several seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.section import KeysOf, Section, Seed
from sftkey_dist.config.strategy import Name
from sftkey_dist.suggestion import closest_name

VARIANT_AND_STRATEGY = r"^[^/]+/[^/]+$"


class VariantConfig(Section):
    """One variant of a study's configuration."""

    about: str = ""
    """Description for the results page."""
    num_seeds: int | None = Field(None, ge=1, le=1_000_000)
    """Number of the study's seeds that it uses, from the first one on. Default: all."""
    config: Annotated[dict[str, Any], KeysOf(RunConfig)] = Field(default_factory=dict)
    """Keys of a run that override those of the file, except `run_dir` and `seed`, which the study sets."""

    @field_validator("config")
    @classmethod
    def leaves_the_studys_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        """They would have no effect."""
        for key in ("run_dir", "seed"):
            if key in value:
                raise ValueError(f"{key} is set by the study for each run; remove it")
        return value


class ContrastConfig(Section):
    """Two strategies that are compared seed by seed."""

    question: str
    """The question that the comparison answers, for the results page."""
    first: str = Field(pattern=VARIANT_AND_STRATEGY)
    """The first side, as `variant/strategy`."""
    second: str = Field(pattern=VARIANT_AND_STRATEGY)
    """The side that the first one is compared with, as `variant/strategy`."""


class PointConfig(Section):
    """A point of a curve: the difference of two strategies at a place of the axis."""

    x: Annotated[float, Field(ge=1e-9, le=1e9)] | Annotated[str, Field(pattern=VARIANT_AND_STRATEGY)]
    """A number, or `variant/strategy`: the loss tokens of a step of its last stage as a share of those of a step of its
    first stage, as the first seed has them."""
    first: str = Field(pattern=VARIANT_AND_STRATEGY)
    """The first side, as `variant/strategy`."""
    second: str = Field(pattern=VARIANT_AND_STRATEGY)
    """The side that is subtracted, as `variant/strategy`."""


class CurvesConfig(Section):
    """A figure of differences along an axis, with a curve for each series."""

    question: str
    """The question that the figure answers, its heading on the results page."""
    x_label: str
    """Label of the axis, which is logarithmic."""
    series: dict[str, tuple[PointConfig, ...]] = Field(min_length=1)
    """Points of each curve, by its name."""


class StudyConfig(Section):
    """A study: every variant is run with every seed. The rest of the file is the configuration that the variants
    change."""

    title: str
    """Heading of the results page."""
    about: str = ""
    """Paragraph under the heading."""
    limits: str = ""
    """What the study does not show, for the opening of the results page."""
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1)
    """Seeds of the runs, for the data order and for the initial weights of embedded models."""
    runs_at_a_time: int = Field(1, ge=1, le=10_000)
    """Number of runs that are executed concurrently. Each needs `cluster.num_workers` workers."""
    variants: dict[Name, VariantConfig] = Field(min_length=1)
    """Variants by name."""
    contrasts: tuple[ContrastConfig, ...] = ()
    """Comparisons across strategies and variants."""
    curves: tuple[CurvesConfig, ...] = ()
    """Figures of differences along an axis, for the results page."""

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds that a variant is run with."""
        return self.seeds[: self.variants[variant].num_seeds]

    @model_validator(mode="after")
    def seeds_differ(self) -> Self:
        """Two runs with the same seed would be the same run."""
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        return self

    @model_validator(mode="after")
    def variants_have_no_more_seeds(self) -> Self:
        """A variant uses the first seeds of the study."""
        for name, variant in self.variants.items():
            if variant.num_seeds is not None and variant.num_seeds > len(self.seeds):
                raise ValueError(f"variants: {name}: num_seeds={variant.num_seeds}, but there are {len(self.seeds)}")
        return self

    @model_validator(mode="after")
    def contrasts_and_curves_name_variants(self) -> Self:
        """A variant may define its own strategies, which `require_strategies` checks."""
        for where, side in self._sides():
            if side.partition("/")[0] not in self.variants:
                raise ValueError(f"{where}: {side}: there is no such variant; the variants are {list(self.variants)}")
        return self

    def require_strategies(self, configs: Mapping[str, RunConfig]) -> None:
        """Check that contrasts and curves name strategies of their variants.

        Args:
            configs: of each variant.

        Raises:
            ValueError: A strategy does not exist.
        """
        for where, side in self._sides():
            variant, _, strategy = side.partition("/")
            known = configs[variant].strategy_names
            if strategy not in known:
                close = closest_name(strategy, known)
                meant = f"; did you mean {variant}/{close}?" if close else ""
                raise ValueError(f"{where}: {side}: variant {variant} has the strategies {', '.join(known)}{meant}")

    def _sides(self) -> Iterator[tuple[str, str]]:
        """The key and the text of every `variant/strategy`."""
        for contrast in self.contrasts:
            yield from (("contrasts", side) for side in (contrast.first, contrast.second))
        for curves in self.curves:
            for name, points in curves.series.items():
                for point in points:
                    places = [point.x] if isinstance(point.x, str) else []
                    yield from ((f"curves: series: {name}", side) for side in (point.first, point.second, *places))


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    variant: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Folder of the run, relative to the study's folder."""
        return run_name(self.variant, self.seed)


@dataclass(frozen=True)
class Study:
    """A study with the configuration of every run.

    Attributes:
        folder: folder of all its runs, which is the file's ``run_dir``.
        settings: the study's own settings.
        runs: ordered by seed, so that the finished runs of a long study can already be compared.
    """

    folder: Path
    settings: StudyConfig
    runs: tuple[StudyRun, ...]


def run_name(variant: str, seed: int) -> str:
    """Folder of a run, relative to its study's folder."""
    return f"{variant}/seed-{seed}"


def own_keys(content: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Keys that every run of a study or tuning sets: its folder, and the same experiment for all runs."""
    tracking = content.get("tracking")
    if tracking is None or isinstance(tracking, Mapping):  # the validation of the run refuses anything else
        tracking = {"experiment": folder.name} | dict(tracking or {})
    return {"run_dir": str(folder / name), "tracking": tracking}
