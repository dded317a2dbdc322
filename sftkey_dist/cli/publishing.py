"""The command that publishes a model: push."""

from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.cli.arguments import path
from sftkey_dist.console import console


def push(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", parser=path, help="Run directory.")],
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="Strategy whose final model is uploaded.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Upload the adapter alone, where a single stage trained one.")
    ] = False,
) -> None:
    """Upload a strategy's model and card to the Hugging Face hub, with the token of `hf auth login` or HF_TOKEN."""
    from sftkey_dist.pipeline.push import push as push_model

    address = push_model(run_dir, strategy, repository, is_private=private, adapter_only=adapter)
    console.print(f"uploaded: {address}", soft_wrap=True, markup=False)
