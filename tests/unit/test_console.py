"""What a person sees, on whatever they look at it with."""

import io
import os
import subprocess
import sys
import time

import pytest
from rich.table import Table
from rich.text import Text

from sftkey_dist.console import PlainConsole, ProgressLine, progress_line, visible

HOSTILE = "\x1b]0;owned\x07 \x1b[2J [/nothing] [bold :smile: \x9b31m \x7f"
SHOWN = "␛]0;owned␇ ␛[2J [/nothing] [bold :smile: \ufffd31m ␡"


def test_what_an_interrupted_start_had_done_does_not_count_for_the_estimate(monkeypatch, capsys):
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    line = ProgressLine(None, "stage", 100)
    # It had come to step 40, and goes on from the checkpoint of step 20.
    for seconds[0], done in ((1.0, 40), (100.0, 20), (120.0, 41)):
        line.update(done)
    assert capsys.readouterr().out.splitlines()[-1].endswith("120 s, 56 s left")


def test_an_estimate_counts_down_and_is_not_shown_once_its_time_is_over(monkeypatch, capsys):
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    line = ProgressLine(None, "a long title that a terminal of 80 columns would break " * 2, 4)
    for seconds[0], done in ((0.0, 0), (100.0, 2), (150.0, 2), (201.0, 2)):
        line.update(done, "note")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("note ")[2] for line in lines] == ["100 s, 100 s left", "150 s, 50 s left", "201 s"]
    line.update_with_estimate(2, "", 30.0)
    assert line.seconds_left() == 30, "what the caller knows is better than the speed"
    line.update_with_estimate(3, "", None)
    assert line.seconds_left() is None, "and so is that it does not know"
    seconds[0] = 220.0
    line.update(4)
    assert capsys.readouterr().out.splitlines()[-1].endswith(": 4/4 220 s")


def test_a_terminal_shows_the_same_estimate_whatever_the_note_is(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    shown = io.StringIO()
    terminal = PlainConsole(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr("sftkey_dist.console.console", terminal)
    with progress_line("stage", 4) as line:
        line.update(0)
        seconds[0] = 60.0
        line.update(1, "a run and what it does; " * 9)
        seconds[0] = 90.0
    bar, note = Text.from_ansi(shown.getvalue()).plain.splitlines()[-2:]
    assert "1/4" in bar
    assert bar.endswith("ETA 0:02:30")
    assert note.startswith("a run and what it does; ")
    assert note.endswith("…")
    shown.truncate(0)
    with progress_line("stage", 4) as line:
        line.update(4)
    assert "ETA 0:00:00" in Text.from_ansi(shown.getvalue()).plain


def rendered(*things, width=120, **options):
    file = io.StringIO()
    plain = PlainConsole(file=file, width=width, highlight=False, emoji=False)
    for thing in things:
        plain.print(thing, soft_wrap=True, markup=False, **options)
    return file.getvalue()


def test_text_cannot_steer_the_terminal():
    assert rendered(HOSTILE) == f"{SHOWN}\n"
    table = Table("name")
    table.add_row(HOSTILE.replace("[/nothing] [bold", ""))
    assert "\x1b]" not in rendered(table)
    assert "␛]0;owned" in rendered(table)
    text = Text("a\x1bb", style="bold")
    text.stylize("red", 1, 2)
    assert visible(text).plain == "a␛b"
    assert [(span.start, span.end) for span in text.spans] == [(1, 2)]
    assert rendered("tab\tline\n") == "tab     line\n\n"


@pytest.mark.parametrize("width", range(1, 12))
def test_a_narrow_terminal_shows_what_it_can(width):
    table = Table("strategy", "accuracy", "format", "score")
    table.add_row("sftkey-tag", "0.5", "1.0", "0.65")
    assert rendered(table, "a line that is longer than the terminal is wide", width=width)


def python(code, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", f"from sftkey_dist.console import *\n{code}"],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "ascii", "TERM": "dumb"}])
def test_an_encoding_that_lacks_a_character_is_no_error(variables):
    process = python(r"write_what_the_terminal_can_show(); console.print('r\u00fcn \udcff', markup=False)", **variables)
    out, said = process.communicate()
    assert (out, said, process.returncode) == (b"r\\xfcn \\udcff\n", b"", 0)


def test_work_outlives_the_reader_of_its_output():
    process = python("for _ in range(2_000): console.print('x' * 100)\nraise SystemExit(7)")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 7
    assert process.stderr.read() == b""
