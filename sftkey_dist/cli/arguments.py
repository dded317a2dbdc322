"""Arguments that several commands take: paths, configuration files with overrides, the address of a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.config import RunConfig, is_study, is_tuning, load_config
from sftkey_dist.config.paths import local_path
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import copy_atomically, make_folder
from sftkey_dist.jobs.description import JOB_CONFIG

Configuration = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [KEY=VALUE...]",
        help="YAML files, merged left to right, then overrides such as seed=1.",
    ),
]
Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        show_envvar=False,
        show_default="RAY_API_SERVER_ADDRESS, or port 8265 of this machine",
        help="The cluster's dashboard, such as http://head:8265.",
    ),
]
Unauthenticated = Annotated[
    bool, typer.Option("--allow-unauthenticated", help="Connect to a remote cluster without a token.")
]


def path(text: str) -> Path:
    """A file or folder on the command line; `~` is expanded here, because shells do not expand it after `=`."""
    try:
        return Path(local_path(text))
    except ValueError as error:
        raise ConfigError(f"{text!r}: {error}") from None


def load_run_config(configuration: list[str]) -> RunConfig:
    """The configuration of a run, from files and overrides on the command line."""
    files, overrides = separate_overrides(configuration)
    if not files:
        raise ConfigError("give at least one configuration file, for example configs/quickstart.yaml")
    named = ", ".join(map(str, files))
    if is_tuning(files):
        raise ConfigError(
            f"{named}: the section tune describes many trials, which `sftkey tune` trains; give other commands the "
            f"best.yaml that it writes"
        )
    if is_study(files):
        raise ConfigError(
            f"{named}: the section study describes many runs, which `sftkey run` executes; give other commands the "
            f"run.yaml in the folder of one of them, or a file without the section"
        )
    return load_config(files, overrides)


def separate_overrides(configuration: list[str]) -> tuple[list[Path], list[str]]:
    """Separate files from overrides: an override contains `=` and no `/` before it."""
    overrides = [item for item in configuration if "=" in item and "/" not in item.partition("=")[0]]
    return [Path(item) for item in configuration if item not in overrides], overrides


def lasting(configuration: list[str], folder: Path) -> list[str]:
    """The arguments of a command, for the record of what it made in a folder. The file that was sent with a job is
    copied to the folder, because it is removed when the job ends."""
    if JOB_CONFIG not in configuration:
        return configuration
    make_folder(folder)
    copy_atomically(Path(JOB_CONFIG), folder / JOB_CONFIG)
    return [str(folder / JOB_CONFIG) if item == JOB_CONFIG else item for item in configuration]


def parse_numbers(option: str, text: str) -> list[int]:
    """The value of an option that takes several integers."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} takes integers separated by commas, such as 2,8,64; got {text!r}") from None
