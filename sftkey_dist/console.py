"""Output to the terminal: consoles, and progress bars with ETA."""

import datetime
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
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment
from rich.text import Text

from sftkey_dist.visible import without_control


class PlainConsole(Console):
    """Shows control characters as visible signs, and stops writing when the output is no longer read."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See Console. Control characters are replaced before the layout, so that widths are right."""
        return super().render_str(without_control(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console. Control characters are replaced in all texts, such as cells and titles of tables."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=without_control(segment.text))

    def on_broken_pipe(self) -> None:
        """Continue without output, because only the reader has ended, as in `sftkey run | head`."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


# Output contains names and texts of the user and of models, which must not be interpreted as markup.
console = PlainConsole(highlight=False, markup=False, emoji=False)
errors = PlainConsole(stderr=True, highlight=False, markup=False, emoji=False)

_SECONDS_BETWEEN_LINES = 15.0


def visible(text: Text) -> Text:
    """A styled text with visible signs for control characters."""
    text.plain = without_control(text.plain)
    return text


def write_what_the_terminal_can_show() -> None:
    """From now on, escape characters that the encoding of standard output lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class ProgressLine:
    """Progress of a task: a live bar on a terminal, or occasional lines in a log."""

    def __init__(self, progress: Progress | None, title: str, total: int) -> None:
        self._progress = progress
        self._title = title
        self._total = total
        self._done = 0
        self._first: tuple[float, int] | None = None
        self._ends: float | None = None
        self._started = self._last_line = time.monotonic()
        self._task: TaskID | None = progress.add_task(title, total=total, note="", line=self) if progress else None

    def update(self, done: int, note: str = "") -> None:
        """Set the total amount of work that is done; ``note`` is shown with the bar."""
        now = time.monotonic()
        if self._first is None or done < self._first[1]:  # progress decreases when work resumes from a checkpoint
            self._first = now, done
        if done != self._done:
            self._ends = self._end_at_this_speed(now, done)
        self._show(now, done, note)

    def update_with_estimate(self, done: int, note: str, seconds_left: float | None) -> None:
        """As `update`, where the time left is known better than by the speed so far; None if it is not known yet."""
        now = time.monotonic()
        self._ends = None if seconds_left is None else now + seconds_left
        self._show(now, done, note)

    def _show(self, now: float, done: int, note: str) -> None:
        self._done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif self._is_time_for_a_line():
            self._last_line = now
            words = filter(None, [f"{self._title}: {done}/{self._total}", note, self._times(now)])
            console.print(" ".join(words), markup=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Estimated time until all is done; None while it cannot be told, or if that time is over."""
        left = 0.0 if self._ends is None else self._ends - time.monotonic()
        return left if left > 0 else None

    def _is_time_for_a_line(self) -> bool:
        return self._done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES

    def _end_at_this_speed(self, now: float, done: int) -> float | None:
        """When all is done; the speed does not include start-up or work that was already done."""
        since, found = self._first or (now, done)
        return now + (now - since) / (done - found) * (self._total - done) if done > found else None

    def _times(self, now: float) -> str:
        left = self.seconds_left()
        return f"{now - self._started:.0f} s" + ("" if left is None else f", {left:.0f} s left")


class _Bars(Progress):
    """Bars with their notes below them, because a long note beside a bar would take the room of its figures."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """See Progress."""
        yield self.make_tasks_table(self.tasks)
        for note in filter(None, (task.fields["note"] for task in self.tasks)):
            yield Text(note, no_wrap=True, overflow="ellipsis")


class _TimeLeft(ProgressColumn):
    """The estimate of the line, so that a terminal shows the same one as a log."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """See ProgressColumn."""
        left = 0.0 if task.finished else task.fields["line"].seconds_left()
        words = "-:--:--" if left is None else str(datetime.timedelta(seconds=round(left)))
        return Text(words, style="progress.remaining")


@contextmanager
def progress_line(title: str, total: int) -> Iterator[ProgressLine]:
    """Show progress during the block."""
    if not console.is_terminal:
        yield ProgressLine(None, title, total)
        return
    with _Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        _TimeLeft(),
        console=console,
    ) as progress:
        yield ProgressLine(progress, title, total)


@contextmanager
def progress_when_known(title: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Show progress once the total is known; nothing is shown if the work turns out to be done already.

    Yields:
        A function that is called with the total; it returns a function that is called with the amount that is done.
    """
    with ExitStack() as stack:
        yield lambda total: stack.enter_context(progress_line(title, total)).update
