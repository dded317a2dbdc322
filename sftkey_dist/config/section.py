"""The base class of all parts of the configuration, and shared limits."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_STEPS = 1_000_000_000
MOST_ROWS = 1_000_000_000_000
MOST_WORKERS = 65_536
MOST_SECONDS = 2_592_000
"""30 days."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""The range that numpy's random generator accepts."""


def zero_or_from(least: float) -> AfterValidator:
    """Annotates a number that is 0 or at least `least`; smaller ones would be lost in float32."""

    def check(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"Input should be 0 or at least {least:g}, got {value!r}")
        return value

    return AfterValidator(check)


class Section(BaseModel):
    """A frozen group of keys; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


@dataclass(frozen=True)
class KeysOf:
    """Annotates a mapping that contains keys of a section. They are validated after they have been merged.

    Attributes:
        section: the section that the keys belong to.
    """

    section: type[Section]
