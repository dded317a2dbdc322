"""Matches the user's regular expressions against untrusted texts, with a time limit, because some take extremely
long."""

from functools import lru_cache

import regex

from sftkey_dist.errors import ConfigError

SECONDS = 1.0
"""Time limit for one text."""

Pattern = regex.Pattern[str]


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, *, dot_matches_newline: bool = False) -> Pattern:
    """Compile a pattern.

    Raises:
        ConfigError: It does not compile.
    """
    try:
        return regex.compile(pattern, regex.DOTALL if dot_matches_newline else 0)
    except regex.error as error:
        raise ConfigError(f"regex {pattern!r} does not compile: {error}") from error


def match_whole(pattern: Pattern, text: str, start: int = 0, end: int | None = None) -> "regex.Match[str] | None":
    """Match the whole text; None if it does not match or takes longer than the time limit."""
    try:
        return pattern.fullmatch(text, start, len(text) if end is None else end, timeout=SECONDS)
    except TimeoutError:
        return None


def last_match(pattern: Pattern, text: str) -> str | None:
    """The relevant text of the last match in which it is not empty: its first group that took part, or the whole match.

    Returns:
        The text, or None if there is no match or matching takes longer than the time limit.
    """
    try:
        found = [_counted(match) for match in pattern.finditer(text, timeout=SECONDS)]
    except TimeoutError:
        return None
    return next((each for each in reversed(found) if each), None)


def _counted(match: "regex.Match[str]") -> str:
    groups = [group for group in match.groups() if group is not None]
    return str(match.group() if not match.re.groups else (groups[0] if groups else ""))
