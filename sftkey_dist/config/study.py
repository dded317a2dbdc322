"""The configuration of a study: one run's configuration, varied, with several seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.section import KeysOf, Section, Seed
from sftkey_dist.config.strategy import Name

VARIANT_AND_STRATEGY = r"^[^/]+/[^/]+$"


class VariantConfig(Section):
    """One way to run it."""

    about: str = ""
    """What it is, for the page."""
    num_seeds: int | None = Field(None, ge=1, le=1_000_000)
    """Of the study's seeds it has so many, the first ones; None means all."""
    config: Annotated[dict[str, Any], KeysOf(RunConfig)] = Field(default_factory=dict)
    """Keys of a run that it sets differently from the file's."""


class ContrastConfig(Section):
    """Two strategies to compare seed by seed."""

    question: str
    """What the comparison answers, for the page."""
    first: str = Field(pattern=VARIANT_AND_STRATEGY)
    """`variant/strategy`."""
    second: str = Field(pattern=VARIANT_AND_STRATEGY)
    """`variant/strategy` that the first is compared with."""


class StudyConfig(Section):
    """Every variant with every seed; the rest of the file is the run that they vary."""

    title: str
    """Heading on the page."""
    about: str = ""
    """A paragraph under it."""
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1)
    """Seeds of the runs: order of the data, and weights of embedded models."""
    runs_at_a_time: int = Field(1, ge=1, le=10_000)
    """Runs side by side; each needs `cluster.num_workers` workers."""
    variants: dict[Name, VariantConfig] = Field(min_length=1)
    """Ways to run it, by name."""
    contrasts: tuple[ContrastConfig, ...] = ()
    """Comparisons across strategies and variants."""

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds that a variant is run with."""
        return self.seeds[: self.variants[variant].num_seeds]

    @model_validator(mode="after")
    def seeds_differ(self) -> Self:
        """A seed twice is one run."""
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        return self

    @model_validator(mode="after")
    def contrasts_name_variants(self) -> Self:
        """Strategies are checked where they are read: a variant may make its own."""
        for contrast in self.contrasts:
            for side in (contrast.first, contrast.second):
                if side.partition("/")[0] not in self.variants:
                    raise ValueError(f"contrasts: {side}: there is no such variant; there are {list(self.variants)}")
        return self


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    variant: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Its folder, below the study's."""
        return run_name(self.variant, self.seed)


@dataclass(frozen=True)
class Study:
    """A study with every run spelled out.

    Attributes:
        folder: of all its runs, from the file's ``run_dir``.
        settings: as configured.
        runs: seed by seed, so that what is done of a long study can be compared.
    """

    folder: Path
    settings: StudyConfig
    runs: tuple[StudyRun, ...]


def run_name(variant: str, seed: int) -> str:
    """The folder of a run, below its study's."""
    return f"{variant}/seed-{seed}"


def own_keys(content: Mapping[str, Any], run_dir: Path, variant: str, seed: int) -> dict[str, Any]:
    """What a run of a study sets by itself: its folder, its seed, and one experiment for the whole study."""
    tracking = {"experiment": run_dir.name} | dict(content.get("tracking") or {})
    return {"run_dir": str(run_dir / run_name(variant, seed)), "seed": seed, "tracking": tracking}
