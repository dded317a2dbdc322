"""Regular expressions of the user's on texts of a model's: they may take for ever, and so have a time limit."""

from functools import lru_cache

import regex

from sftkey_dist.errors import ConfigError

SECONDS = 1.0
"""For one text."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> "regex.Pattern[str]":
    """A compiled pattern.

    Raises:
        ConfigError: it does not compile.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ConfigError(f"regular expression {pattern!r} does not compile: {error}") from error


def last_match(pattern: "regex.Pattern[str]", text: str) -> str | None:
    """What counts in the last match that has anything: its first group that took part, or all of it without groups.

    None as well for a text that takes longer than the time limit.
    """
    try:
        found = [_counted(match) for match in pattern.finditer(text, timeout=SECONDS)]
    except TimeoutError:
        return None
    return next((each for each in reversed(found) if each), None)


def matches_whole(pattern: "regex.Pattern[str]", text: str) -> bool:
    """Whether a pattern matches a whole text, within the time limit."""
    try:
        return pattern.fullmatch(text, timeout=SECONDS) is not None
    except TimeoutError:
        return False


def _counted(match: "regex.Match[str]") -> str:
    groups = [group for group in match.groups() if group is not None]
    return str(match.group() if not match.re.groups else (groups[0] if groups else ""))
