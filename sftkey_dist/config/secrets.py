"""Keeps secrets out of settings, which are written to the run directory and to MLflow and quoted in messages."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import unquote_plus, urlsplit

_WORDS = {"token", "secret", "secrets", "password", "passwd", "passphrase", "pwd", "credential", "credentials"}
_WORDS |= {"apikey", "signature", "sig", "bearer"}
_LAST_WORDS = {"key", "pass", "auth", "authorization", "sas", "pat"}
_INSIDE = ("accesskey", "apikey", "secretkey", "privatekey", "password", "passwd")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_USER_AND_PASSWORD = re.compile(r"[^/?#@:\s]*:[^@]*@")
_CONTAINER_BEFORE_HOST = ("abfs", "abfss", "wasb", "wasbs")
"""Azure's schemes, which write `container@account`."""
_PARAMETER = re.compile(r"([?&;#])([^=&;#?\s]+)=([^&;#\s]*)")
_KEY_ITSELF = re.compile(
    r"\b(?:sk-(?=[\w-]*\d)[\w-]{16,}|(?:sk|rk|pk)_(?:live|test)_\w{8,}|hf_[A-Za-z0-9]{16,}|gh[oprsu]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{16,}|wandb_v1_\w{16,}|glpat-[\w-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[\w-]{20,}|xox[abeprs]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIKE_A_KEY = re.compile(r"(?=.*\d)[A-Za-z0-9]{20,}|sk[-_].*", re.IGNORECASE)


def require_no_credentials(text: str, instead: str) -> None:
    """
    Args:
        text: a path, an id, an address or a URI.
        instead: where credentials belong. It is the end of the message, which does not repeat the text.

    Raises:
        ValueError: The text contains a user name and password, a parameter that is named like a secret, or a key.
    """
    if holds_credentials(text):
        raise ValueError(f"must not contain credentials, because the configuration is written to files; {instead}")


def holds_credentials(text: str) -> bool:
    """Whether a path, an id, an address or a URI contains credentials."""
    return (
        _names_a_user(text)
        or any(is_named_like_a_secret(name) for name in _parameters(text))
        or _KEY_ITSELF.search(text) is not None
    )


def without_credentials(text: str) -> str:
    """A message or an address, with asterisks in place of anything that may be credentials."""
    text = re.sub(r"://\S*@", "://***@", text)
    text = re.sub(r"(^|[\s'\"(])[^\s/:@'\"(]+:(?!//)[^\s@]+@", r"\1***@", text)
    return _KEY_ITSELF.sub("***", _PARAMETER.sub(_hidden, text))


def in_a_line(error: object, most_characters: int = 200) -> str:
    """The message of an error on one line, shortened and without credentials, to be quoted in another."""
    return without_credentials(" ".join(str(error).split()))[:most_characters]


def is_named_like_a_secret(name: str) -> bool:
    """Whether a parameter or a variable of that name probably contains a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    compact = "".join(words)
    return bool(words) and (
        not _WORDS.isdisjoint(words) or words[-1] in _LAST_WORDS or any(part in compact for part in _INSIDE)
    )


def is_variable_name(text: str) -> bool:
    """Whether a text can be the name of an environment variable and is not an API key."""
    is_name = _VARIABLE.fullmatch(text) is not None
    return is_name and not _KEY_ITSELF.search(text) and not _LIKE_A_KEY.fullmatch(text)


def is_loopback(address: str) -> bool:
    """Whether an address, `host:port` or a URL, is a loopback address of this machine."""
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_a_user(text: str) -> bool:
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    if _USER_AND_PASSWORD.match(rest):  # a password may have a slash in it
        return True
    is_container = scheme is not None and scheme.group()[:-3].lower() in _CONTAINER_BEFORE_HOST
    return scheme is not None and not is_container and "@" in re.split(r"[/?#]", rest)[0]


def _parameters(text: str) -> Iterator[str]:
    for _, name, _ in _PARAMETER.findall(text):
        yield unquote_plus(name)


def _hidden(match: re.Match[str]) -> str:
    separator, name, value = match.groups()
    return f"{separator}{name}={'***' if is_named_like_a_secret(unquote_plus(name)) else value}"
