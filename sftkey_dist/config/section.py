"""What every part of the configuration has in common."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


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
