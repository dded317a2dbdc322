import io
import json
import re
import shutil
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml
from rich.console import Console

from sftkey_dist.cli.results import compare as compare_command
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.evaluation.diagnosis import Finding
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.markdown import table
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.plots import plot_lengths
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.study.evidence import COMPARISON, Evidence
from sftkey_dist.report.study.plots import plot_seeds
from sftkey_dist.report.tables import comparison_table, findings_table
from tests.finished_run import write_run


@pytest.fixture
def finished_run(tmp_path):
    return write_run(tmp_path / "study", {"sft-tag": 10, "sftkey-tag": 18})


def test_rows_hold_scores_and_costs(finished_run):
    rows = read_comparison([finished_run]).rows
    assert [(row.strategy, row.scores.score, row.train_seconds) for row in rows] == [
        ("sft-tag", pytest.approx(0.65), 10.0),
        ("sftkey-tag", pytest.approx(0.93), 21.0),
    ]


def test_files_are_written_beside_each_other_and_are_whole(finished_run):
    _, files = compare([finished_run])
    assert [file.suffix for file in files[:4]] == [".json", ".md", ".html", ".svg"]
    assert len(json.loads(files[0].read_text())["rows"]) == 2
    assert "| sftkey-tag | 20 | 0.900 [0.70, 0.97] | 1.000 [0.84, 1.00] | 0.930 " in files[1].read_text()
    for plot in files[3:]:
        assert ET.parse(plot).getroot().tag.endswith("svg")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in compare([finished_run])[1]] == before


def test_comparison_may_be_written_anywhere(finished_run, tmp_path):
    _, files = compare([finished_run], tmp_path / "elsewhere" / "table.json")
    assert all(file.is_file() for file in files)


def test_several_runs_are_told_apart(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "again")
    _, files = compare([finished_run, tmp_path / "again"], tmp_path / "both.json")
    assert "| study/sft-tag |" in files[1].read_text()
    assert "| again/sft-tag |" in files[1].read_text()


def test_the_table_fits_a_narrow_terminal_without_cutting_names(finished_run):
    with console.capture() as capture:
        console.print(comparison_table(read_comparison([finished_run])), width=80)
    text = capture.get()
    assert "sftkey-tag" in text
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 30])
def test_findings_are_wrapped_and_not_cut(width):
    key, place = "key_stage.optimization.learning_rate", "exports/bank/of_the_third_quarter/cases.csv:441"
    findings = [Finding("kind", 1, 48, "In 1 of 48 outputs", f"lower {key}", (place, "cases.csv:7"))]
    with console.capture() as capture:
        console.print(findings_table("sft", [*findings, Finding("drift", 0, 48, "It got worse.", "stop")]), width=width)
    text = capture.get()
    assert "…" not in text
    whole = re.sub(r"\s", "", text)
    assert all(said in whole for said in (key, place, "cases.csv:7", "Itgotworse.", "stop"))
    assert (key in text) == (width == 80), "in one piece where there is room"


def test_long_names_are_wrapped_and_not_cut(tmp_path):
    name = "key-stage-after-the-whole-response-with-replay"
    with console.capture() as capture:
        console.print(comparison_table(read_comparison([write_run(tmp_path / "study", {name: 4})])), width=80)
    text = capture.get()
    assert "…" not in text
    assert name in "".join(line.strip().split(" ")[0] for line in text.splitlines())
    assert "0.200" in text
    assert "0.08-0.42" in text, "numbers stay whole"


def test_unfinished_runs_are_errors_that_say_what_to_do(finished_run, tmp_path):
    with pytest.raises(DataError, match="sftkey run"):
        read_comparison([tmp_path / "nowhere"])
    (finished_run / "evaluation" / "sft-tag" / "scores.json").unlink()
    with pytest.raises(DataError, match=r"sft-tag has not been evaluated.*sftkey evaluate"):
        read_comparison([finished_run])


def test_pairs_are_tested_and_marked_where_they_differ(finished_run):
    comparison = read_comparison([finished_run])
    tests = comparison.to_json(Path())["paired_tests"]
    assert isinstance(tests, list)
    (test,) = tests
    assert (test["only_first_correct"], test["only_second_correct"]) == (0, 8)
    assert test["accuracy_p_value"] == pytest.approx(2 * 0.5**8)
    with console.capture() as capture:
        console.print(comparison_table(comparison), width=100)
    assert "0.900*" in capture.get()
    assert "0.500*" not in capture.get()


def test_runs_of_one_folder_name_are_told_apart_and_one_given_twice_is_one(tmp_path):
    runs = [write_run(tmp_path / seed / "out", {"sft": right}) for seed, right in (("seed0", 4), ("seed1", 9))]
    comparison = read_comparison([*runs, runs[0]])
    assert comparison.labels == ["seed0/out/sft", "seed1/out/sft"]
    assert [round(accuracy, 2) for accuracy, _ in comparison.measures.values()] == [0.2, 0.45]


@pytest.mark.parametrize("name", ["gsm8k[/main]", "gsm8k [main]", "[bold]x[/]", ":warning: set", "a | b <i>"])
@pytest.mark.parametrize("whose", [console, Console(file=io.StringIO())])
def test_tables_show_names_as_they_are(tmp_path, name, whose):
    run = write_run(tmp_path / "study [x]", {"sft": 3, "mine[/]": 5}, name=name)
    finding = Finding("kind", 1, 2, f"In {name}", f"mend {name}", (f"{name}#1",))
    with whose.capture() as capture:
        whose.print(comparison_table(read_comparison([run])), width=150)
        whose.print(findings_table(name, [finding]), width=150)
    text = capture.get()
    assert all(said in text for said in (f"{name}: score", "mine[/]", f"In {name}", f"mend {name}", f"{name}#1"))


def test_messages_show_names_as_they_are():
    with console.capture() as capture:
        console.print("study[/x] [red]: :warning:")
    assert capture.get() == "study[/x] [red]: :warning:\n"


@pytest.mark.slow
def test_figures_and_files_hold_names_as_they_are(tmp_path):
    folders = ["cost_$5_to_$10", "_hidden", "$x^{$", "a[b]", "x | y <z>"]
    runs = [write_run(tmp_path / folder / "out", {"sft": 4, "_mine$1$": 9}) for folder in folders]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, files = compare(runs, tmp_path / "$all$.json")
    assert all(ET.parse(plot).getroot().tag.endswith("svg") for plot in files[3:])
    assert r"cost\_\$5_to\_\$10/out/\_mine\$1\$" in files[1].read_text()
    assert r"x \| y &lt;z>/out/sft" in files[1].read_text()


def words_of(figure):
    return {word.lstrip("\u200b") for word in re.findall(r"<text[^>]*>([^<]*)</text>", figure.read_text())}


def test_every_line_of_a_figure_is_in_its_legend(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # words, not their outlines
    run = write_run(tmp_path / "study", {"sft": 4, "_mine": 9, "$5": 5, "$1$": 6})
    (alpha,) = [file for file in compare([run])[1] if file.stem.endswith("alpha")]
    assert {"sft", "_mine", "$5", "$1$"} <= words_of(alpha)
    seeds = plot_seeds({"$a$ $": {"$b$": [0.1], "_c": [0.2]}}, "score", tmp_path / "seeds.svg")
    assert {"$a$ $", "$b$", "_c"} <= words_of(seeds)
    assert "_s" in words_of(plot_lengths(np.ones((2, 1)), ["_s"], tmp_path / "lengths.svg"))


def test_a_cell_stays_a_cell():
    assert table(["a|b", "c"], [["x\ny", "<b>"]]) == ["| a\\|b | c |", "| --- | ---: |", "| x y | &lt;b> |"]


def test_a_model_card_begins_with_yaml_whatever_names_are(tmp_path):
    run = write_run(tmp_path / "a: b", {"x: [y": 3})
    (facts,) = read_facts([run])
    _, front, _ = model_card(read_comparison([run]).rows[0], facts).split("---\n", 2)
    assert yaml.safe_load(front)["tags"] == ["sftkey", "x: [y"]


def test_what_nobody_judged_is_null_in_files_and_a_dash_in_tables(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    run = write_run(tmp_path / "study", {"sft": 0, "sft-tag": 0}, verdict="unjudged")
    comparison, files = compare([run])
    for file in (files[0], *run.glob("evaluation/*/scores.json")):
        json.loads(file.read_text(), parse_constant=refuse)
    row = json.loads(files[0].read_text())["rows"][0]
    assert (row["accuracy"], row["score"], row["format"]) == (None, None, 1.0)
    with console.capture() as capture:
        console.print(comparison_table(comparison), width=120)
    shown = [capture.get(), files[1].read_text(), files[2].read_text()]
    assert all("\u2013" in text and not re.search(r"\bnan\b", text) for text in shown)
    assert "nothing was judged" in shown[1]


def test_the_star_names_the_row_that_it_compares_with(tmp_path):
    without_sft = write_run(tmp_path / "study", {"sft-tag": 2, "sftkey-tag": 18})
    caption = str(comparison_table(read_comparison([without_sft])).caption)
    assert "* accuracy differs from sft-tag on the same questions (McNemar, 5 %)" in caption
    with_sft = write_run(tmp_path / "other", {"sft": 2, "sftkey-tag": 18})
    assert "differs from sft on" in str(comparison_table(read_comparison([with_sft])).caption)


def test_a_comparison_is_written_into_a_folder_or_to_a_json_file(tmp_path, capsys):
    run = write_run(tmp_path / "study", {"sft-tag": 10, "sftkey-tag": 18})
    compare_command([run], out=tmp_path)
    outcomes = [row["outcomes"] for row in json.loads((tmp_path / "comparison.json").read_text())["rows"]]
    assert [of["correct"].count("1") for of in outcomes] == [10, 18]
    assert outcomes[0]["questions"] == outcomes[1]["questions"]
    said = " ".join(capsys.readouterr().out.split())
    assert "figures beside them" in said
    assert ".svg" not in said
    assert "model of sftkey-tag: " in said
    with pytest.raises(ConfigError, match=r"--out .*mine: give the name of a \.json file, or a folder that exists"):
        compare_command([run], out=tmp_path / "mine")


def test_a_pair_that_could_not_have_been_told_apart_is_called_underpowered(tmp_path):
    _, files = compare([write_run(tmp_path / "few", {"sft": 10, "sft-tag": 12, "sftkey-tag": 20})])
    warning = (
        "Underpowered: no difference in accuracy was found for sft - sft-tag, and a true one of 0.05 would be found"
    )
    for file in files[1:3]:
        said = file.read_text()
        assert warning in said
        assert "smallest difference in accuracy that the test would see with 80 % power" in said
    assert "| 0 / 2 | 0.5000 | 0.349 |" in files[1].read_text(), "seven of 20, though only two differ"
    _, files = compare([write_run(tmp_path / "clear", {"sft": 2, "sftkey-tag": 20})])
    assert "Underpowered" not in files[1].read_text() + files[2].read_text()


def test_guided_scores_are_named_and_never_beside_others(tmp_path):
    free = write_run(tmp_path / "free", {"sft": 10})
    guided = write_run(tmp_path / "guided", {"sft": 10, "sft-tag": 12}, guided=("sft", "sft-tag"))
    mixed = write_run(tmp_path / "mixed", {"sft": 10, "sft-tag": 12}, guided=("sft",))
    assert read_comparison([guided]).guided
    assert not read_comparison([free]).guided
    for runs in ([free, guided], [mixed]):
        with pytest.raises(DataError, match=r"only some scores are guided \(.*sft"):
            read_comparison(runs)
    (facts,) = read_facts([guided])
    assert "guided decoding: an output that ends keeps" in model_card(read_comparison([guided]).rows[0], facts)
    rows = [COMPARISON.of("", read_comparison([run]).to_json(Path())).rows[0].result for run in (guided, free)]
    evidence = Evidence("study", None, {name: {"sft": {0: row}} for name, row in zip("gf", rows, strict=True)}, {}, ())
    assert (evidence.note_on("g"), evidence.note_on("f")) == (", guided decoding", "")
    assert '"guided"' not in json.dumps(read_comparison([free]).to_json(Path()))


def test_a_model_card_says_what_a_response_looks_like_and_reads_the_answer_out_of_it(tmp_path, capsys):
    run = write_run(tmp_path / "run", {"sft-tag": 12})
    (facts,) = read_facts([run])
    card = model_card(read_comparison([run]).rows[0], facts)
    assert "`<Thinking>…</Thinking><Answer>…</Answer>`" in card
    code = card.partition("import re\n")[2].partition("```")[0]
    exec(f"import re\n{code}", {"text": "<Thinking>so\nyes</Thinking><Answer>ye\ns</Answer><eos>"})
    assert capsys.readouterr().out == "['ye\\ns']\n"


def test_a_comparison_of_several_runs_leaves_the_pages_of_each_alone(tmp_path):
    runs = [write_run(tmp_path / name, {"sft-tag": right}) for name, right in (("one", 12), ("two", 9))]
    _, alone = compare(runs[:1])
    page = alone[0].read_bytes()
    _, files = compare(runs)
    assert files[0] == tmp_path / "comparison-one-two" / "comparison.json"
    assert alone[0].read_bytes() == page


def test_a_comparison_of_one_run_is_the_same_wherever_it_is_made_and_the_run_is_moved(tmp_path, monkeypatch):
    """The digest that tells whether a run of a study is done is of this file."""
    run = write_run(tmp_path / "study" / "seed-1", {"sft": 10})
    _, files = compare([run])
    before = files[0].read_bytes()
    monkeypatch.chdir(tmp_path / "study")
    compare([Path("seed-1")])
    assert files[0].read_bytes() == before
    moved = run.rename(tmp_path / "elsewhere")
    _, files = compare([moved])
    assert files[0].read_bytes() == before


def test_runs_of_the_same_name_are_told_apart_in_the_terminal_and_on_the_page(tmp_path):
    runs = [write_run(tmp_path / variant / "seed-1", {"sft": right}) for variant, right in (("one", 4), ("two", 9))]
    comparison, files = compare([*runs, runs[0] / ".." / "seed-1"], tmp_path / "compared.json")
    with console.capture() as capture:
        console.print(comparison_table(comparison), width=120)
    for shown in (capture.get(), files[2].read_text()):
        assert "one/seed-1" in shown
        assert "two/seed-1" in shown
    assert [fact.name for fact in read_facts([*runs, runs[0]])] == ["one/seed-1", "two/seed-1"]


def test_rows_with_other_questions_are_not_ranked(tmp_path):
    runs = [write_run(tmp_path / name, {"sft": 9, "sft-tag": 9}, name=f"{name}/test") for name in ("gsm8k", "qa")]
    comparison, files = compare(runs, tmp_path / "compared.json")
    assert comparison.alpha_ranges == []
    assert "so that they are not ranked" in files[1].read_text()
    assert "not ranked, because the strategies answered other questions" in files[2].read_text()
    with console.capture() as capture:
        console.print(comparison_table(comparison), width=120)
    assert "gsm8k/test, qa/test: score" in capture.get()


def test_strategies_that_share_the_highest_score_are_all_named(tmp_path):
    _, files = compare([write_run(tmp_path, {"sft": 3, "sft-tag": 9, "sftkey-tag": 9})])
    assert "Highest score by alpha: sft-tag and sftkey-tag for" in files[1].read_text()


def test_a_study_is_not_compared_as_a_run(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(DataError, match="it is a study; run `sftkey results` with it"):
        read_comparison([tmp_path])


def test_a_local_folder_is_no_model_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", {"sft": 3})
    assert "Qwen/Qwen2.5-7B" in _card(run)
    (tmp_path / "Qwen" / "Qwen2.5-7B").mkdir(parents=True)
    assert "base_model" not in _card(run)


def _card(run: Path) -> str:
    (facts,) = read_facts([run])
    return model_card(read_comparison([run]).rows[0], facts)
