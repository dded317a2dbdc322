"""The picture for slides: whole, the same bytes for the same runs, and drawn with any name."""

import warnings

import matplotlib.figure
import matplotlib.image
import pytest

from sftkey_dist.cli.results import compare
from sftkey_dist.errors import ConfigError
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.headline import headline
from sftkey_dist.report.slide import draw_slide
from tests.finished_run import write_run

LONG = "a strategy with a name that is too long for its column"


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda figure, *of, **named: saved.append(figure) or save(figure, *of, **named),
    )
    return saved


def texts_of(figure):
    return [text.get_text() for part in (figure, *figure.axes) for text in part.texts]


@pytest.mark.parametrize("number", [1, 14])
def test_a_slide_has_one_size_and_the_same_bytes_again(tmp_path, number):
    comparison = read_comparison([write_run(tmp_path / "run", {f"s{i}": i + 4 for i in range(number)})])
    first, second = draw_slide(comparison, tmp_path / "a.png"), draw_slide(comparison, tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    assert matplotlib.image.imread(first).shape[:2] == (900, 1600)


def test_a_slide_says_the_result_and_every_score(tmp_path, figures):
    comparison = read_comparison([write_run(tmp_path / "run", {"sft": 5, "sftkey-tag": 18})])
    draw_slide(comparison, tmp_path / "slide.png")
    texts = texts_of(figures[-1])
    assert texts[0].replace("\n", " ") == headline(comparison)
    assert {"sft", "sftkey-tag", "0.250", "0.900", "0.70 to 0.97", "1.000", "0.930", "20"} <= set(texts)
    weights = {text.get_text(): text.get_fontweight() for text in figures[-1].axes[1].texts}
    assert (weights["sft"], weights["sftkey-tag"]) == ("normal", "bold"), "the leader is told apart"
    assert any("score = 0.7 accuracy + 0.3 format" in text for text in texts)


@pytest.mark.parametrize("number", [2, 12])
def test_texts_of_a_slide_stay_inside_it_and_do_not_overlap(tmp_path, figures, number):
    names = {f"{LONG} {i}": i + 4 for i in range(number)}
    draw_slide(read_comparison([write_run(tmp_path / "run", names)]), tmp_path / "slide.png")
    (figure,) = figures
    canvas = figure.get_window_extent()
    for part in (figure, *figure.axes):
        for text in part.texts:
            box = text.get_window_extent()
            assert canvas.x0 <= box.x0
            assert box.x1 <= canvas.x1, text.get_text()
    cells = [text for text in figure.axes[1].texts if text.get_text()]
    named = [text.get_window_extent() for text in cells if text.get_text().startswith("a strategy wit…")]
    accuracies = [text.get_window_extent() for text in cells if " to " in text.get_text()][::3]
    assert len(named) == len(accuracies) == number
    assert all(name.x1 < accuracy.x0 for name, accuracy in zip(named, accuracies, strict=True))


def test_a_slide_says_what_must_be_known_of_the_models(tmp_path, figures, monkeypatch):
    caution = "sftkey-tag has the same weights as sft-tag: " + "its guard kept the model of the stage before; " * 9
    monkeypatch.setattr("sftkey_dist.report.slide.cautions", lambda comparison: [caution])
    draw_slide(read_comparison([write_run(tmp_path / "run", {"sft-tag": 5, "sftkey-tag": 5})]), tmp_path / "slide.png")
    (figure,) = figures
    (shown,) = [text for text in figure.texts if text.get_text().startswith("sftkey-tag has the same weights")]
    assert shown.get_text().endswith(" …")
    assert shown.get_text().count("\n") == 1
    box = shown.get_window_extent()
    assert box.x1 <= figure.get_window_extent().x1
    (note,) = [text.get_window_extent() for text in figure.texts if "score = 0.7" in text.get_text()]
    assert note.y1 <= box.y0
    assert box.y1 <= figure.axes[0].xaxis.label.get_window_extent().y0


@pytest.mark.parametrize("name", ["$x^{$", r"\$ \frac{", "_d_", "*f*", "\x1b[2J", "<b>"])
def test_a_slide_shows_a_name_as_it_is(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = draw_slide(read_comparison([write_run(tmp_path / "run", {name: 4, "sft": 9})]), tmp_path / "slide.png")
    assert file.stat().st_size > 10_000


def test_what_nobody_judged_is_a_dash(tmp_path, figures):
    run = write_run(tmp_path / "run", {"sft": 5, "sft-tag": 18}, verdict="unjudged")
    draw_slide(read_comparison([run]), tmp_path / "slide.png")
    texts = texts_of(figures[-1])
    assert texts.count("\N{EN DASH}") == 4, "accuracy and score"
    assert "0.00 to 1.00" not in texts


def test_compare_writes_the_slide_only_where_it_is_asked_to(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"sft": 5, "sft-tag": 18})
    compare([run])
    assert not list(tmp_path.rglob("*.png"))
    compare([run], png=tmp_path / "slides" / "result.png")
    assert "result.png" in capsys.readouterr().out
    assert (tmp_path / "slides" / "result.png").is_file()
    for wrong in (tmp_path / "result.jpg", tmp_path):
        with pytest.raises(ConfigError, match=r"--png .*: give the name of a \.png file"):
            compare([run], png=wrong)
