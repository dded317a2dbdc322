"""Regular expressions of the user's, on texts that the user did not write: with a time limit, as some take for ever."""

from functools import lru_cache

import regex

from sftkey_dist.errors import ConfigError

SECONDS = 1.0
"""For one text."""

Pattern = regex.Pattern[str]


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, *, dot_matches_newline: bool = False) -> Pattern:
    """A compiled pattern.

    Raises:
        ConfigError: it does not compile.
    """
    try:
        return regex.compile(pattern, regex.DOTALL if dot_matches_newline else 0)
    except regex.error as error:
        raise ConfigError(f"regex {pattern!r} does not compile: {error}") from error


def match_whole(pattern: Pattern, text: str, start: int = 0, end: int | None = None) -> "regex.Match[str] | None":
    """The match of all of a text; None as well where it takes longer than the time limit."""
    try:
        return pattern.fullmatch(text, start, len(text) if end is None else end, timeout=SECONDS)
    except TimeoutError:
        return None


def last_match(pattern: Pattern, text: str) -> str | None:
    """What counts in the last match that has anything: its first group that took part, or all of it without groups.

    None as well for a text that takes longer than the time limit.
    """
    try:
        found = [_counted(match) for match in pattern.finditer(text, timeout=SECONDS)]
    except TimeoutError:
        return None
    return next((each for each in reversed(found) if each), None)


def _counted(match: "regex.Match[str]") -> str:
    groups = [group for group in match.groups() if group is not None]
    return str(match.group() if not match.re.groups else (groups[0] if groups else ""))
