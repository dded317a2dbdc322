"""A user's own function as a check."""

import importlib
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.verdict import Judgement


def judge_by_function(
    function: Callable[[str, str, str], object], answer: str, reference: str, question: str
) -> Judgement:
    """The judgement of a function, which is unjudged if it returns None. The function may raise any exception.

    Raises:
        TypeError: It returns something else, as a score or a text, which would count as true.
    """
    outcome = function(answer, reference, question)
    if outcome is None:
        return Judgement.unjudged("the function cannot tell")
    if not isinstance(outcome, bool | np.bool_):
        raise TypeError(f"it returns {type(outcome).__name__}, not True, False or None")
    return Judgement.of(bool(outcome))


def function_file(reference: str) -> Path | None:
    """The file of the function at ``package.module:name`` or ``path/to/file.py:name``; None if it is not found."""
    place = reference.rpartition(":")[0]
    if place.endswith(".py"):
        file = Path(place).absolute()
    else:
        try:
            spec = importlib.util.find_spec(place)
        except Exception:  # it imports the packages above, which are the user's; loading the function tells the error
            return None
        file = Path(spec.origin or "") if spec else Path()
    return file if file.is_file() else None


@lru_cache(maxsize=8)
def load_function(reference: str, digest: str = "") -> Callable[[str, str, str], object]:
    """The function at ``package.module:name`` or ``path/to/file.py:name``.

    Args:
        reference: the place of the function.
        digest: of its file; with another one, a file is loaded again. A module is imported once in a process.

    Raises:
        ConfigError: There is no such function, or its file cannot be loaded.
    """
    place, _, name = reference.rpartition(":")
    try:
        function = getattr(_load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place), name)
    except Exception as error:  # a user's file may raise any exception
        raise ConfigError(f"answer_check.function {reference!r}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ConfigError(f"answer_check.function {reference!r} is no function")
    return function  # type: ignore[no-any-return]


def _load_file(file: Path) -> object:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
