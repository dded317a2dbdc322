"""Names and model outputs are text in every medium: terminal, figures, Markdown and the page."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import markdown_it
import pytest
from rich.table import Table
from rich.text import Text

from sftkey_dist.console import PlainConsole
from sftkey_dist.evaluation.diagnosis import Finding
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.markdown import Markdown, escaped, table
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.plots import Curve, plot_curves, plot_key_nll, plot_plane
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.study.plots import plot_seeds
from sftkey_dist.report.tables import comparison_table, findings_table
from tests.finished_run import write_run

NAMES = [
    "a[/x]",
    "[bold]b",
    "[link=http://evil]c[/link]",
    "$5",
    "$x^{$",
    r"\$ \frac{",
    "_d_",
    "__e__",
    "*f*",
    "`g`",
    "~~h~~",
    "x^2",
    "a\\",
    "a\\|b",
    "a|b",
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "&lt;i&gt;",
    "[j](http://evil)",
    "![k](http://evil)",
    "# l",
    "> m",
    "- n",
    ":warning:",
    "{{ 7 * 7 }}",
    "{% raw %}",
]
STEERING = ["\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202eevil", "\u2028", "\U000e0041", "\x00", "\x08"]
"""What a terminal obeys, what reorders a line, and what nobody sees."""


def as_text(markdown):
    """What a reader sees of Markdown, line ends aside."""
    made = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    return (
        re.sub(r"<[^>]*>", "", made)
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", '"')
        .replace("&amp;", "&")
    )


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is_in_a_table_and_in_a_line(name):
    made = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render("\n".join(table(["h", name], [[name, "1"]])))
    assert made.count("<tr>") == 2
    assert (made.count("<th"), made.count("<td")) == (3, 2), "thead is one of three"
    assert len(re.findall(r"<(?!/?(?:table|thead|tbody|tr|th|td)\b)", made)) == 0, "nothing in a cell is markup"
    cell = re.search(r"<td[^>]*>(.*?)</td>", made)[1]
    assert as_text(escaped(name)).strip() == name
    assert cell == re.search(r"<th style[^>]*>(.*?)</th>", made)[1]


def test_our_own_markup_is_markup_still():
    assert table(["a"], [[Markdown("**b** | c")]])[2] == "| **b** | c |"


@pytest.mark.parametrize("text", STEERING)
def test_markdown_shows_what_nobody_sees_as_an_escape(text):
    assert all(each.isprintable() for each in escaped(f"a{text}b"))


def rendered(*things, width=200):
    file = io.StringIO()
    plain = PlainConsole(file=file, width=width, highlight=False, emoji=False, markup=False)
    for thing in things:
        plain.print(thing, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("name", [*NAMES, *STEERING])
def test_terminal_tables_show_a_name_as_it_is_and_obey_nothing(tmp_path, name):
    by_text, by_string = Table(title=Text(f"title {name}"), caption=Text(name)), Table(title=f"title {name}")
    for one in (by_text, by_string):
        one.add_column(name)
        one.add_row(Text(f"cell {name}"))
        one.add_row(f"cell {name}")
    finding = Finding("kind", 1, 2, f"In {name}", f"mend {name}", (f"{name}#1",))
    shown = rendered(by_text, by_string, Text(f"line {name}"), f"line {name}", findings_table(name, [finding]))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\U000e0041]", shown)
    if name in NAMES:
        assert all(shown.count(f"{what} {name}") == 2 for what in ("title", "line"))
        assert shown.count(f"cell {name}") == 4


@pytest.mark.parametrize("name", [*NAMES, *STEERING])
def test_figures_draw_with_any_name_and_are_whole(tmp_path, name):
    curve = Curve.of([1, 2], [0.5, 0.25])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = [
            plot_curves({name: curve}, name, name, tmp_path / "curves.svg"),
            plot_key_nll({name: curve}, tmp_path / "nll.svg"),
            plot_plane({name: (0.5, 0.5)}, {name: ((0.4, 0.6), (0.4, 0.6))}, tmp_path / "plane.svg"),
            plot_seeds({name: {name: [0.1, 0.2]}}, name, tmp_path / "seeds.svg"),
        ]
    assert all(ET.parse(file).getroot().tag.endswith("svg") for file in files)


class Elements(HTMLParser):
    """The names of a page's elements, and whatever runs in it."""

    def __init__(self):
        super().__init__()
        self.names, self.handlers = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.slow
def test_the_page_holds_names_and_outputs_as_text(tmp_path):
    hostile = " ".join([*NAMES, *STEERING])
    strategies = {name.replace("/", "\u2215"): 4 for name in NAMES[:20] if "\\" not in name}
    (tmp_path / "plain").mkdir()
    plain = write_run(tmp_path / "plain" / "study", dict.fromkeys([f"s{i}" for i in range(len(strategies))], 4))
    run = write_run(tmp_path / "study", strategies, output=hostile, name=hostile)
    made = {}
    for which in (plain, run):
        _, files = compare([which])
        text = files[2].read_text()
        made[which] = Elements()
        made[which].feed(text)
    assert not re.search("[\x00\x08\x1b\x9b\u202e\u2028\U000e0041]", text)
    assert "&lt;script&gt;alert(1)" in text
    for tag in ("script", "img", "td", "tr", "title", "i"):
        assert made[run].names.count(tag) == made[plain].names.count(tag), tag
    assert made[run].handlers == []
    (facts,) = read_facts([run])
    card = model_card(read_comparison([run]).rows[0], facts)
    assert "<script" not in card
    assert rendered(comparison_table(read_comparison([run])))
