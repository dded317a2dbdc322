"""What every tracker does with the records of a run: nested keys become names of metrics."""

from collections.abc import Mapping
from typing import Any


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a record: all its numbers but the step. Nested keys are joined with slashes; text is left out."""
    return {
        name: float(value)
        for name, value in flattened(record, "/").items()
        if name != "step" and isinstance(value, int | float)
    }


def flattened(values: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """The values of nested mappings. Their keys are joined with the separator."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{inner}": item for inner, item in flattened(value, separator).items()}
        else:
            flat[key] = value
    return flat
