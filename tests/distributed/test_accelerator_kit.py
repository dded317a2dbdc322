"""The kit for a machine with an accelerator works: its verbs run here at tiny shapes, on the CPU."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from sftkey_dist.training.job import StageJob
from tests.accelerator import exact
from tests.accelerator.__main__ import main

ROOT = Path(__file__).parents[2]
VERBS = ("probe", "attention", "throughput", "memory", "report")
"""`exact`, `hand_off` and `two_ranks` are what `test_bfloat16.py` calls."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main([*VERBS, "--tiny", "--results", str(folder)]) == 0
    return folder


def test_every_verb_writes_what_it_found(results):
    found = {file.stem: json.loads(file.read_text()) for file in results.glob("*.json")}
    assert set(found) == set(VERBS) - {"report"}
    assert found["probe"]["extensions_compiled_at_import"] == [], "a machine without a compiler trains too"
    assert set(found["probe"]["gloo_between_two_ranks"].values()) == {"right"}
    for row in found["attention"]["rows"]:
        assert row["loop"]["error"] < 1e-5
        assert row["dense"]["error"] < 1e-5
    for verb in ("throughput", "memory"):
        for case in found[verb]["rows"].values():
            assert case["stage 1"]["tokens_per_second"] > 0
            assert 0 < case["stage 2"]["positions_with_loss"] < case["stage 1"]["positions_with_loss"]


def test_the_page_has_every_figure_and_names_what_is_missing(results):
    page = (results / "README.md").read_text()
    assert "## Attention over a packed row" in page
    assert page.count("Not measured.") == 3
    assert "nan" not in page
    committed = ROOT / "tests/accelerator/results"
    for folder in committed.iterdir():
        assert (folder / "README.md").read_text().startswith("# Measured on an accelerator")


def test_a_layout_or_a_case_that_fails_leaves_the_others_their_figures(tmp_path, monkeypatch):
    good_job, bad_job = (Mock(spec=StageJob) for _ in range(2))

    def fail(jobs):
        if jobs == [bad_job]:
            raise RuntimeError("CUDA error:\nno kernel")

    monkeypatch.setattr(exact, "train", fail)
    assert exact.train_and_look([good_job, bad_job])["problems"] == ["", "RuntimeError: CUDA error: no kernel"]
    good = {"layout": "gathered", "precision": "float32", "loss": 0.0, "grad_norm": 0.0, "passed": True}
    bad = {"layout": "adapters", "precision": "float32", "problem": "no kernel", "passed": False}
    found = {"layouts": [good, bad], "resumed": 0.0, "bytes_left_after_closing": 0}
    (tmp_path / "exact.json").write_text(json.dumps(found))
    (tmp_path / "memory.json").write_text(json.dumps({"rows": {"rows of 8k": {"problem": "out of memory"}}}))
    assert main(["report", "--results", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    assert "| gathered | float32 | 0 | 0 | yes |" in page
    assert "| adapters | float32 | - | - | no kernel |" in page
    assert "rows of 8k failed: out of memory." in page
