"""Splitting work into batches."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive batches of at most ``size`` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]
