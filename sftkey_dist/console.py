"""What a person sees while a run works: one console, progress bars with ETA, tables."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from sftkey_dist.visible import without_control


class PlainConsole(Console):
    """Shows control characters as signs, and goes on without output when nobody reads it any more."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See Console; before a text is laid out, so that signs have their width."""
        return super().render_str(without_control(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console; whatever a text came in, as a table's cell or a title, it cannot steer the terminal."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=without_control(segment.text))

    def on_broken_pipe(self) -> None:
        """The reader of `sftkey run | head` is gone; the work is not."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


# What is printed holds names and texts of the user and of models: none of it is markup.
console = PlainConsole(highlight=False, markup=False, emoji=False)
errors = PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)

_SECONDS_BETWEEN_LINES = 15.0


def visible(text: Text) -> Text:
    """A styled text with signs for its control characters."""
    text.plain = without_control(text.plain)
    return text


def write_what_the_terminal_can_show() -> None:
    """From now on a character that standard output's encoding lacks is written as an escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class ProgressLine:
    """Progress of one piece of work: a live bar on a terminal, a line now and then in a log."""

    def __init__(self, progress: Progress | None, title: str, total: int) -> None:
        self._progress = progress
        self._title = title
        self._total = total
        self._done = 0
        self._first: tuple[float, int] | None = None
        self._started = self._last_line = time.monotonic()
        self._task: TaskID | None = progress.add_task(title, total=total, note="") if progress else None

    def update(self, done: int, note: str = "") -> None:
        """Say how much is done in all; ``note`` stands beside the bar."""
        if self._first is None or done < self._first[1]:  # work goes back when it resumes from a checkpoint
            self._first = time.monotonic(), done
        self._done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif self._is_time_for_a_line():
            self._last_line = time.monotonic()
            console.print(f"{self._title}: {done}/{self._total} {note} {self._eta()}", markup=False)

    def _is_time_for_a_line(self) -> bool:
        return self._done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES

    def _eta(self) -> str:
        """Neither the start-up nor what a resumed piece of work found done counts for its speed."""
        now = time.monotonic()
        since, found = self._first or (now, self._done)
        newly_done = self._done - found
        left = f", {(now - since) / newly_done * (self._total - self._done):.0f} s left" if newly_done > 0 else ""
        return f"{now - self._started:.0f} s{left}"


@contextmanager
def progress_line(title: str, total: int) -> Iterator[ProgressLine]:
    """Draw progress while the block lasts."""
    if not console.is_terminal:
        yield ProgressLine(None, title, total)
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    ) as progress:
        yield ProgressLine(progress, title, total)


@contextmanager
def progress_when_known(title: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Progress whose total is not known yet: work that turns out to be done already draws none.

    Yields:
        A function of the total; it returns what is told how much is done.
    """
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(progress_line(title, total)).update
