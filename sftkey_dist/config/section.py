"""The base class of all parts of the configuration, and shared limits."""

import types
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

MAX_STEPS = 1_000_000_000
MIN_LOSS_WEIGHT = 1e-6
MAX_LOSS_WEIGHT = 1_000_000
MAX_ROWS = 1_000_000_000_000
MAX_WORKERS = 65_536
MAX_SECONDS = 2_592_000
"""30 days."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""The range that numpy's random generator accepts."""


def zero_or_from(least: float) -> AfterValidator:
    """Annotates a number that is 0 or at least `least`; smaller ones would be lost in float32."""

    def check(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"must be 0 or at least {least:g}, got {value!r}")
        return value

    return AfterValidator(check)


def _kinds_of(annotation: object) -> set[object]:
    """The types that an annotation is made of, without those of items."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) in (Union, Annotated):
        return set().union(*(_kinds_of(each) for each in get_args(annotation)))
    return {annotation}


class Section(BaseModel):
    """A frozen group of keys; unknown keys are errors. Its validation is built when it is first needed: most processes
    need a few of all sections."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def a_truth_value_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """pydantic reads true as 1."""
        if isinstance(value, bool) and info.field_name is not None:
            kinds = _kinds_of(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and kinds & {int, float}:
                raise ValueError(f"must be a number, found {str(value).lower()}")
        return value

    def has_default(self, key: str) -> bool:
        """Whether a key has its default value."""
        return bool(getattr(self, key) == type(self).model_fields[key].get_default(call_default_factory=True))


class SectionWithNewerKeys(Section):
    """A section that has got keys later. They are not written where they have their defaults, so that files and digests
    equal those from before the keys existed."""

    newer_keys: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def newer_keys_only_where_they_are_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer keys that are not set."""
        left_out = {key for key in self.newer_keys if self.has_default(key)}
        return {key: value for key, value in handler(self).items() if key not in left_out}


@dataclass(frozen=True)
class KeysOf:
    """Annotates a mapping that contains keys of a section. They are validated after they have been merged.

    Attributes:
        section: the section that the keys belong to.
    """

    section: type[Section]
