"""Commands for runs as jobs on a Ray cluster: submit and the group `job`."""

import secrets
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.cli.arguments import (
    Address,
    Configuration,
    Unauthenticated,
    load_run_config,
    path,
    separate_overrides,
)
from sftkey_dist.cli.exits import SIGNALLED
from sftkey_dist.config import is_study, is_tuning, load_study, load_tuning
from sftkey_dist.console import console, errors
from sftkey_dist.errors import ConfigError, InterruptedRunError
from sftkey_dist.jobs.description import JOB_ADDRESS, JobDescription

_VERBS = ("run", "prepare", "train", "evaluate", "tune")

job = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Follow and stop jobs on a Ray cluster.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id that `sftkey submit` printed.")]


def submit(
    configuration: Configuration,
    address: Address = "http://127.0.0.1:8265",
    verb: Annotated[
        str | None,
        typer.Option(
            help="Command that the job executes: run, prepare, train, evaluate or tune.",
            show_default="run, or tune for a file with the section tune",
        ),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            help="Folder to send: the files that git tracks or, without a git work tree, Python files and the "
            "files that the configuration names.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Also send these files of the folder, e.g. data/*.jsonl; without a git work tree, send only these.",
        ),
    ] = None,
    with_package: Annotated[
        bool, typer.Option("--with-package", help="Also send this version of the package.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the log until the job ends.")] = False,
    allow_unauthenticated: Unauthenticated = False,
) -> None:
    """Run a configuration, a study or a tuning as a job on a Ray cluster, and follow its log.

    Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster. run_dir and data.store_dir must be absolute paths on
    storage that all nodes share. Ctrl-C stops following the log, but not the job.
    """
    described = _describe(configuration, verb)
    from sftkey_dist.jobs.client import RayJobs
    from sftkey_dist.jobs.upload import packed

    with packed(described, working_dir, include or ()) as upload:
        if upload.left_out:
            console.print(upload.left_out_in_words(), soft_wrap=True, markup=False)
        jobs = RayJobs(address, allow_unauthenticated=allow_unauthenticated)
        arguments = described.arguments(allow_unauthenticated=allow_unauthenticated)
        started = f"sftkey-{secrets.token_hex(8)}"
        with _submitting(started, address):
            jobs.submit(started, upload, arguments, with_package=with_package)
    console.print(
        f"job {started}: sftkey job logs|status|stop {started} --address {shlex.quote(address)}",
        soft_wrap=True,
        markup=False,
    )
    if not no_wait:
        with _following(started, address):
            jobs.follow(started, _show_as_it_is)


@job.command()
def status(
    identifier: JobId, address: Address = "http://127.0.0.1:8265", allow_unauthenticated: Unauthenticated = False
) -> None:
    """Print the status of a job: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    from sftkey_dist.jobs.client import RayJobs

    console.print(RayJobs(address, allow_unauthenticated=allow_unauthenticated).status(identifier))


@job.command()
def logs(
    identifier: JobId,
    address: Address = "http://127.0.0.1:8265",
    follow: Annotated[bool, typer.Option(help="Follow the log until the job ends.")] = False,
    allow_unauthenticated: Unauthenticated = False,
) -> None:
    """Print the log of a job."""
    from sftkey_dist.jobs.client import RayJobs

    jobs = RayJobs(address, allow_unauthenticated=allow_unauthenticated)
    if follow:
        with _following(identifier, address):
            jobs.follow(identifier, _show_as_it_is)
    else:
        _show_as_it_is(jobs.log(identifier))


@job.command()
def stop(
    identifier: JobId, address: Address = "http://127.0.0.1:8265", allow_unauthenticated: Unauthenticated = False
) -> None:
    """Stop a job. If the same configuration is submitted again, it continues from its last checkpoint."""
    from sftkey_dist.jobs.client import RayJobs

    RayJobs(address, allow_unauthenticated=allow_unauthenticated).stop(identifier)
    console.print(f"job {identifier} was asked to stop", markup=False)


def _describe(configuration: list[str], verb: str | None) -> JobDescription:
    if verb not in (None, *_VERBS):
        raise ConfigError(f"--verb {verb}: a job can {', '.join(_VERBS[:-1])} or {_VERBS[-1]}")
    files, overrides = separate_overrides(configuration)
    on_the_cluster = [*overrides, JOB_ADDRESS]
    if verb == "tune" or (verb is None and is_tuning(files)):
        return JobDescription.of_tuning(load_tuning(files, on_the_cluster))
    if verb in (None, "run") and is_study(files):
        return JobDescription.of_study(load_study(files, on_the_cluster))
    return JobDescription.of_run(load_run_config(configuration), verb or "run")


def _submitting(identifier: str, address: str) -> AbstractContextManager[None]:
    """Say how to find out about a job that the cluster may have taken when a signal came."""
    how = f"sftkey job status {identifier} --address {shlex.quote(address)}"
    return _saying_if_interrupted(f"the cluster may have started the job; {how} shows whether it has")


def _following(identifier: str, address: str) -> AbstractContextManager[None]:
    """Let Ctrl-C end the block without stopping the job."""
    how = f"sftkey job logs --follow {identifier} --address {shlex.quote(address)}"
    return _saying_if_interrupted(f"the job continues; {how} shows its log, and sftkey job stop stops it")


@contextmanager
def _saying_if_interrupted(message: str) -> Iterator[None]:
    try:
        yield
    except InterruptedRunError as interrupt:
        errors.print(message, soft_wrap=True, markup=False)
        raise SystemExit(SIGNALLED + interrupt.signal_number) from None


def _show_as_it_is(text: str) -> None:
    console.print(text, end="", soft_wrap=True, markup=False, highlight=False)
