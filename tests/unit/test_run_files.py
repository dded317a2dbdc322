"""Files of a run that are damaged, or that lead elsewhere, through every reader of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sftkey_dist.config.run import RunConfig
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.judge.memory import JudgeMemory
from sftkey_dist.evaluation.judging import is_scored
from sftkey_dist.pipeline.compare import compare, diagnose_run
from sftkey_dist.pipeline.records import forget_all_but
from sftkey_dist.pipeline.study import _written_date
from sftkey_dist.pipeline.sync import sync
from sftkey_dist.report.comparison import read_comparison
from sftkey_dist.report.evidence import Evidence
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.run_dir import RunDir
from sftkey_dist.tracking.mlflow_store import _read_run_ids
from tests.finished_run import write_run

DAMAGES = {"empty": b"", "NULs": b"\0" * 512, "cut off": b'{"steps": 4, "tok'}


@pytest.fixture
def run(tmp_path) -> Path:
    folder = write_run(tmp_path / "run", {"sft-tag": 12, "sftkey-tag": 15})
    source = {"adapter": "decision_memos", "limit": 8}
    config = RunConfig(run_dir=folder, model={"path": "m"}, data={"train": source, "test": source | {"split": "test"}})
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


READERS: dict[str, list[Callable[[Path], object]]] = {
    "strategies.json": [
        lambda run: read_comparison([run]),
        lambda run: forget_all_but(RunDir(run), ["sft-tag"]),
        lambda run: sync(run),
    ],
    "stages/full-1/stage.json": [lambda run: read_comparison([run]), lambda run: diagnose_run(run)],
    "evaluation/sft-tag/scores.json": [
        lambda run: read_comparison([run]),
        lambda run: is_scored(None, [], run / "evaluation/sft-tag"),
    ],
    "config.json": [lambda run: read_facts([run]), lambda run: diagnose_run(run), lambda run: sync(run)],
    "environment.json": [lambda run: read_facts([run])],
    "data_report.json": [lambda run: read_facts([run])],
    "tracking.json": [lambda run: _read_run_ids(run / "tracking.json")],
    "identity": [lambda run: RunDir(run).identity()],
    "first_prepared": [lambda run: RunDir(run).first_prepared()],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_a_damaged_file_and_what_to_do(run, name, damage):
    (run / name).write_bytes(DAMAGES[damage])
    for read in READERS[name]:
        with pytest.raises(DataError, match=name.rpartition("/")[2]) as raised:
            read(run)
        message = str(raised.value)
        assert os.path.abspath(message.partition(": ")[0]) == str(run / name)
        assert any(word in message for word in ("restore", "remove", "writes it anew"))
        assert "\n" not in message


@pytest.mark.parametrize("name", ["stages/full-1/metrics.jsonl", "stages/full-1/timings.jsonl"])
def test_nuls_in_the_middle_of_a_journal_are_named_with_their_line(run, name, tmp_path):
    lines = (run / name).read_bytes().split(b"\n")
    lines[1] = b"\0" * len(lines[1])
    (run / name).write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=rf"{name}:2: the line is damaged \(NULs\); restore it from a copy, or remove"):
        compare([run], tmp_path / "comparison.json")


def test_records_of_an_evaluation_and_rulings_of_judges_are_checked_too(run, tmp_path):
    records = run / "evaluation" / "sft-tag" / "records.jsonl"
    records.write_text("{}\n{broken\n" + records.read_text())
    with pytest.raises(DataError, match=r"records\.jsonl:2: the line is damaged"):
        diagnose_run(run)
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "rulings-1.jsonl").write_bytes(b"\0\0\n")
    with pytest.raises(DataError, match=r"rulings-1\.jsonl:1: .*remove that line.*asked again"):
        JudgeMemory(tmp_path / "judge", run)


@pytest.mark.parametrize("path", ["../../x", "/etc", "evaluation/../../x", "", "a\0b"])
@pytest.mark.parametrize("place", ["evaluation", "stage"])
def test_a_path_that_leads_out_of_the_run_is_refused(run, place, path):
    entries = json.loads((run / "strategies.json").read_text())
    if place == "evaluation":
        entries["sft-tag"]["evaluation"] = path
    else:
        entries["sft-tag"]["stages"][0]["path"] = path
    (run / "strategies.json").write_text(json.dumps(entries))
    for read in READERS["strategies.json"]:
        with pytest.raises(DataError, match=r"strategies\.json: sft-tag\..*leads out of the run's folder"):
            read(run)


@pytest.mark.parametrize("content", [{"sft-tag": {}}, {"sft-tag": {"stages": []}}, {"sft-tag": 1}])
def test_an_entry_that_lacks_something_is_named_by_its_key(run, content):
    (run / "strategies.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"strategies\.json: sft-tag"):
        read_comparison([run])


def test_scores_that_lack_something_are_named_by_it(run):
    file = run / "evaluation" / "sft-tag" / "scores.json"
    content = json.loads(file.read_text())
    del content["agreement"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"scores\.json: agreement: Field required; remove it and evaluate"):
        read_comparison([run])


def test_a_studys_files_are_checked(tmp_path):
    facts = {"title": "t", "about": "", "command": "", "seeds": [1], "contrasts": []}
    facts["variants"] = {"a": {"about": "", "seeds": [1]}}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    (tmp_path / "a" / "seed-1").mkdir(parents=True)
    for content in DAMAGES.values():
        (tmp_path / "a" / "seed-1" / "comparison.json").write_bytes(content)
        with pytest.raises(DataError, match=r"comparison\.json: .*; remove done\.json beside it and `sftkey run`"):
            Evidence.read(tmp_path)
    (tmp_path / "run.yaml").write_text("prompt: {date: {")
    with pytest.raises(DataError, match=r"run\.yaml: damaged .*set prompt\.date"):
        _written_date(tmp_path / "run.yaml")
    (tmp_path / "study.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"study\.json: empty; `sftkey run` with the study's configuration renews it"):
        Evidence.read(tmp_path)


def test_a_run_that_is_renamed_keeps_the_place_of_its_checkpoints(tmp_path):
    run = tmp_path / "a run/of ours"
    run.mkdir(parents=True)
    identity = RunDir(run).identity()
    assert identity.startswith("of_ours-")
    renamed = run.rename(tmp_path / "renamed")
    assert RunDir(renamed).identity() == identity
