"""The configuration of an OpenAI-compatible endpoint."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.secrets import holds_credentials, is_loopback, is_variable_name
from sftkey_dist.config.section import MAX_SECONDS, Section


class EndpointConfig(Section):
    """A server with the chat-completions API: vLLM, `transformers serve` or a hosted API."""

    url: str
    """Base URL, such as `http://127.0.0.1:8000/v1`."""
    model: str
    """Name of the model on the server."""
    api_key_env: str | None = None
    """Environment variable that contains the API key. Default: OPENAI_API_KEY for api.openai.com, and no key for other
    servers."""
    timeout_seconds: float = Field(120.0, ge=0.001, le=MAX_SECONDS)
    """Maximum time to wait for one answer."""
    max_retries: int = Field(5, ge=0, le=1000)
    """Maximum number of retries, after the delay that the server asks for or with exponential backoff. Dropped
    connections and the statuses 408, 409, 425, 429 and 5xx are retried, also when such an error comes with status
    200."""
    concurrency: int = Field(8, ge=1, le=10_000)
    """Maximum number of concurrent requests."""
    requests_per_minute: float | None = Field(None, ge=0.01, le=1e9)
    """Rate limit over all machines that send requests. Retries are not counted."""
    max_tokens: int = Field(2048, ge=1, le=1_000_000)
    """Maximum length of an answer, in tokens."""

    @field_validator("api_key_env")
    @classmethod
    def key_is_named_not_given(cls, value: str | None) -> str | None:
        """The configuration is written to files, so it must not contain the key itself."""
        if value is not None and not is_variable_name(value):
            raise ValueError("must be the name of an environment variable, such as MY_KEY, and never the key itself")
        return value

    @model_validator(mode="after")
    def url_is_one_and_holds_no_secret(self) -> Self:
        """The configuration is written to files, so the URL must not contain a secret."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("url must begin with http:// or https://")  # the URL is not repeated: it may contain a key
        if holds_credentials(self.url) or parts.query or parts.fragment:
            raise ValueError(
                "url must not contain credentials, a query (?) or a fragment (#); put the key into the environment "
                "variable that api_key_env names"
            )
        return self

    @model_validator(mode="after")
    def key_is_sent_encrypted(self) -> Self:
        """Over http:// the key could be read in transit."""
        if self.key_variable and urlsplit(self.url).scheme != "https" and not is_loopback(self.url):
            raise ValueError(
                f"url must begin with https://, so that the key in {self.key_variable} is not sent unencrypted; "
                f"http:// is only allowed for servers on this machine and for servers without a key"
            )
        return self

    @property
    def key_variable(self) -> str | None:
        """Environment variable of the API key. OPENAI_API_KEY is sent to OpenAI only, unless the configuration names
        it."""
        is_openai = urlsplit(self.url).hostname == "api.openai.com"
        return self.api_key_env or ("OPENAI_API_KEY" if is_openai else None)
