import json
import shutil
import xml.etree.ElementTree as ET

import pytest

from sftkey_dist.console import console
from sftkey_dist.errors import DataError
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.comparison import read_comparison
from sftkey_dist.report.tables import comparison_table
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


def test_unfinished_runs_are_errors_that_say_what_to_do(finished_run, tmp_path):
    with pytest.raises(DataError, match="sftkey run"):
        read_comparison([tmp_path / "nowhere"])
    (finished_run / "evaluation" / "sft-tag" / "scores.json").unlink()
    with pytest.raises(DataError, match=r"sft-tag has not been evaluated.*sftkey evaluate"):
        read_comparison([finished_run])


def test_pairs_are_tested_and_marked_where_they_differ(finished_run):
    comparison = read_comparison([finished_run])
    (test,) = comparison.to_json()["paired_tests"]
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
