"""What every part of the configuration has in common."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_STEPS = 1_000_000_000
MOST_ROWS = 1_000_000_000_000
MOST_WORKERS = 65_536
MOST_SECONDS = 2_592_000
"""30 days."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What numpy's generator takes."""


def zero_or_from(least: float) -> AfterValidator:
    """Annotates a number that may be 0; what is nearer to it would be lost in float32."""

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
    """Annotates a mapping whose keys are those of a section, which are validated where they are merged.

    Attributes:
        section: whose keys they are.
    """

    section: type[Section]
