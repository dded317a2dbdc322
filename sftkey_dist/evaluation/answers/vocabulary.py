"""Lists of words, written as texts."""


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def word_list(text: str) -> list[str]:
    """The words of a text, in order."""
    return text.split()
