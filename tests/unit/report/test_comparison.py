import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import asdict

import pytest

from sftkey_dist.console import console
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.score import macro_average, score_by_data_set, score_records
from sftkey_dist.report.comparison import read_comparison
from sftkey_dist.report.tables import comparison_table
from sftkey_dist.report.writing import write_comparison


@pytest.fixture
def finished_run(tmp_path):
    """A run directory as the pipeline leaves it."""
    run = tmp_path / "study"
    write = lambda path, content: (path.parent.mkdir(parents=True, exist_ok=True), path.write_text(content))  # noqa: E731
    for number, stage in enumerate(("stages/full-1", "stages/key-2")):
        records = [{"step": s, "segments": {"answer": {"nll": 2.0 / (s + 1 + number), "tokens": 3}}} for s in range(4)]
        write(run / stage / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        summary = {"steps": 4, "train_seconds": 10.0 + number, "tokens": 100, "loss_tokens": 9, "world_size": 2}
        write(run / stage / "stage.json", json.dumps(summary))
    entries = {}
    for strategy, stages, correct in (("sft-tag", ["full-1"], 10), ("sftkey-tag", ["full-1", "key-2"], 18)):
        records = [
            {
                "id": f"q{i}",
                "data_set": "memos/test",
                "verdict": "correct" if i < correct else "incorrect",
                "reason": "",
                "keeps_contract": True,
                "violation": None,
                "truncated": i == 0,
            }
            for i in range(20)
        ]
        write(run / "evaluation" / strategy / "records.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        by_data_set = score_by_data_set(records, 0.7)
        scores = asdict(score_records(records, 0.7)) | {
            "data_sets": {name: asdict(of_one) for name, of_one in by_data_set.items()},
            "macro_average": macro_average(by_data_set),
            "agreement": {},
            "to_review": 0,
            "is_complete": True,
        }
        write(run / "evaluation" / strategy / "scores.json", json.dumps(scores))
        entries[strategy] = {
            "dataset": "memos/test",
            "key_segments": ["answer"],
            "mlflow_run_id": None,
            "evaluation": f"evaluation/{strategy}",
            "stages": [
                {"name": s.split("-")[0], "path": f"stages/{s}", "shared_with": "sft-tag" if s == "full-1" else None}
                for s in stages
            ],
        }
    write(run / "strategies.json", json.dumps(entries))
    return run


def test_rows_hold_scores_and_costs(finished_run):
    rows = read_comparison([finished_run]).rows
    assert [(row.strategy, row.scores.score, row.train_seconds) for row in rows] == [
        ("sft-tag", pytest.approx(0.65), 10.0),
        ("sftkey-tag", pytest.approx(0.93), 21.0),
    ]


def test_files_are_written_beside_each_other_and_are_whole(finished_run):
    comparison = read_comparison([finished_run])
    files = write_comparison(comparison, finished_run / "comparison.json")
    assert [file.suffix for file in files] == [".json", ".md", ".svg", ".svg"]
    assert len(json.loads(files[0].read_text())["rows"]) == 2
    assert "| sftkey-tag | 20 | 0.900 [0.70, 0.97] | 1.000 [0.84, 1.00] | 0.930 " in files[1].read_text()
    for plot in files[2:]:
        assert ET.parse(plot).getroot().tag.endswith("svg")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_comparison(comparison, finished_run / "comparison.json")] == before


def test_comparison_may_be_written_anywhere(finished_run, tmp_path):
    files = write_comparison(read_comparison([finished_run]), tmp_path / "elsewhere" / "table.json")
    assert all(file.is_file() for file in files)


def test_several_runs_are_told_apart(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "again")
    files = write_comparison(read_comparison([finished_run, tmp_path / "again"]), tmp_path / "both.json")
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
