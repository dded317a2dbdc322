"""The configuration of an OpenAI-compatible endpoint."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.secrets import holds_credentials, is_loopback, is_variable_name
from sftkey_dist.config.section import MOST_SECONDS, Section


class EndpointConfig(Section):
    """A chat-completions server: vLLM, `transformers serve`, a hosted API."""

    url: str
    """Base URL, such as `http://127.0.0.1:8000/v1`."""
    model: str
    """Model name that the server knows."""
    api_key_env: str | None = None
    """Environment variable that holds the key; default: OPENAI_API_KEY for api.openai.com, no key for others."""
    timeout_seconds: float = Field(120.0, ge=0.001, le=MOST_SECONDS)
    """Longest wait for one answer."""
    max_retries: int = Field(5, ge=0, le=1000)
    """Attempts after the first, when the server says or with exponential backoff, on 408, 409, 425, 429, 5xx, an error
    of these that comes with status 200, and dropped connections."""
    concurrency: int = Field(8, ge=1, le=10_000)
    """Requests under way at a time."""
    requests_per_minute: float | None = Field(None, ge=0.01, le=1e9)
    """Rate limit, over all machines that ask; retries come on top."""
    max_tokens: int = Field(2048, ge=1, le=1_000_000)
    """Longest answer in tokens."""

    @field_validator("api_key_env")
    @classmethod
    def key_is_named_not_given(cls, value: str | None) -> str | None:
        """The configuration is written to files."""
        if value is not None and not is_variable_name(value):
            raise ValueError("must be the name of an environment variable, such as MY_KEY, and never the key itself")
        return value

    @model_validator(mode="after")
    def url_is_one_and_holds_no_secret(self) -> Self:
        """The configuration is written to files."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("url must begin with http:// or https://")  # not repeated: it may hold a key
        if holds_credentials(self.url) or parts.query or parts.fragment:
            raise ValueError(
                "url must not contain credentials, or anything behind ? or #; put the key into the variable that "
                "api_key_env names"
            )
        return self

    @model_validator(mode="after")
    def key_is_sent_encrypted(self) -> Self:
        """Whoever is on the way could read it."""
        if self.key_variable and urlsplit(self.url).scheme != "https" and not is_loopback(self.url):
            raise ValueError(
                f"url must begin with https://, so that the key in {self.key_variable} is not sent in clear; http:// "
                f"is for servers of this machine, and for those without a key"
            )
        return self

    @property
    def key_variable(self) -> str | None:
        """OpenAI's key goes to OpenAI, and to no other server unless the configuration says so."""
        is_openai = urlsplit(self.url).hostname == "api.openai.com"
        return self.api_key_env or ("OPENAI_API_KEY" if is_openai else None)
