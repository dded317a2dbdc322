"""The command that compares prompts with those of a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftkey_dist.cli.arguments import path, separate_overrides
from sftkey_dist.config import load_section
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.console import console, progress_line
from sftkey_dist.errors import ConfigError

if TYPE_CHECKING:
    from sftkey_dist.endpoint.client import Endpoint

_MAX_SHOWN = 5


def parity(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", parser=path, help="Run directory, whose last model is taken, or a model.")
    ],
    endpoint: Annotated[str, typer.Option(metavar="URL", help="The server, such as http://127.0.0.1:8000/v1.")],
    configuration: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG...] [KEY=VALUE...]",
            help="Configuration with the test rows; default: that of the run that MODEL belongs to.",
        ),
    ] = None,
    served_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model on the server; default: its only one.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that contains the server's API key.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--number", "-n", metavar="N", min=1, help="Maximum number of rows of each test set.")
    ] = None,
) -> None:
    """Compare the prompts of a model with those that a server writes for the same rows, token by token.

    Each test row is written by the training's own encoder and by the server, which must be vLLM or llama.cpp. Every
    difference is named with the tokens around it. The exit code is 1 if there are differences.
    """
    from sftkey_dist.endpoint.tokenizing import find_tokenizer
    from sftkey_dist.pipeline.parity import PromptsHere, find_compared

    compared = find_compared(model, *separate_overrides(configuration or []))
    config, client = _connect(endpoint, served_model, api_key_env)
    served = find_tokenizer(config, client)
    here = PromptsHere(compared, number)
    with progress_line("comparing prompts", len(here.examples)) as line:
        found = here.compare(served, config.concurrency, line.update)
    for difference in found.differences[:_MAX_SHOWN]:
        for text in difference.lines(here.tokenizer):
            console.print(text, soft_wrap=True, markup=False)
    if len(found.differences) > _MAX_SHOWN:
        console.print(f"… and {len(found.differences) - _MAX_SHOWN:,} more rows that differ", markup=False)
    console.print(f"{served.server}, {config.model}: {found.summary()}", soft_wrap=True, markup=False)
    if found.differences:
        raise typer.Exit(1)


def _connect(url: str, served_model: str | None, api_key_env: str | None) -> tuple[EndpointConfig, "Endpoint"]:
    from sftkey_dist.endpoint import endpoint_key
    from sftkey_dist.endpoint.client import Endpoint  # loads openai
    from sftkey_dist.endpoint.tokenizing import base_url

    if not url.startswith(("http://", "https://")):  # it is not repeated, because it may contain a key
        raise ConfigError("--endpoint: give the address of the server, such as http://127.0.0.1:8000/v1")
    given = [f"url={base_url(url)}", f"model={served_model or ''}", "max_retries=2"]
    config = load_section(EndpointConfig, [], [*given, *([f"api_key_env={api_key_env}"] if api_key_env else [])])
    key = endpoint_key(config)
    if served_model is None:
        config = config.model_copy(update={"model": _only_model(config.url, Endpoint(config, key).models())})
    return config, Endpoint(config, key)


def _only_model(url: str, models: list[str]) -> str:
    """The only model of a server; "" if it lists none, as when no server answers."""
    if len(models) > 1:
        raise ConfigError(f"endpoint {url}: the server has {', '.join(models)}; choose one with --served-model")
    return models[0] if models else ""
