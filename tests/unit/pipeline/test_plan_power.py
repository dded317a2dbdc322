"""`sftkey plan --power` reads finished runs and studies, and says what it takes to see a difference."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from sftkey_dist.cli import app
from sftkey_dist.config import load_study
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.pipeline.power import plan_run_power, plan_study_power
from sftkey_dist.report.power import conclusion, power_notes
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS
from tests.finished_run import write_run
from tests.records import output_record

SHARES = {"sft": 0.5, "sft-tag": 0.5, "sftkey-tag": 0.55}
ROOT = Path(__file__).parents[3]
BASE = {
    "model": {"embedded": {}},
    "data": {
        "train": {"adapter": "decision_memos", "limit": 8},
        "test": {"adapter": "decision_memos", "split": "test", "limit": 4},
    },
    "study": {"title": "Pilot", "seeds": [0, 1, 2], "variants": {"base": {}}},
}


def write_answers(run: Path, seed: int, shares=SHARES, num_questions: int = 200) -> Path:
    """A finished run in which every answer is right by chance."""
    write_run(run, dict.fromkeys(shares, 10))
    rng = np.random.default_rng(seed)
    for strategy, share in shares.items():
        right = rng.random(num_questions) < share
        records = [output_record("correct" if one else "incorrect", id=f"q{i}") for i, one in enumerate(right)]
        RECORDS.write(run / "evaluation" / strategy / "records.jsonl", records)
    RunDir(run).comparison.write_text("{}")
    (run / "done.json").write_text(json.dumps({"digest": "ab"}))
    return run


@pytest.fixture
def study_file(tmp_path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(BASE | {"run_dir": str(tmp_path / "study")}))
    return file


@pytest.fixture
def finished_study(study_file, tmp_path) -> Path:
    for seed in (0, 1, 2):
        write_answers(tmp_path / f"study/base/seed-{seed}", seed)
    return study_file


def shown(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["plan", *map(str, arguments), "--power"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_run_tells_of_one_seed_and_says_that_it_does(tmp_path):
    plan = plan_run_power(write_answers(tmp_path / "run", 0), 0.01)
    assert [(pair.first, pair.second) for pair in plan.pairs] == [("sft-tag", "sft"), ("sftkey-tag", "sft")]
    for pair in plan.pairs:
        assert list(pair.needed) == [1]
        assert pair.needed[1] == pytest.approx(2.8016**2 * 0.5 / 0.01**2, rel=0.1), "half of all questions differ"
        assert pair.smallest == pytest.approx(2.8016 * np.sqrt(0.5 / 200) + 1 / 200, rel=0.05)
    assert "One seed does not tell how much the difference varies between seeds" in conclusion(plan)


def test_a_study_without_contrasts_tells_of_every_strategy_and_its_baseline(finished_study):
    plan = plan_study_power(load_study([finished_study]), 0.05)
    assert [pair.first for pair in plan.pairs] == ["base/sft-tag", "base/sftkey-tag"]
    assert {(pair.num_seeds, pair.num_questions) for pair in plan.pairs} == {(3, 200)}
    assert all(list(pair.needed) == [1, 3, 5, 8, 12, 20] for pair in plan.pairs)
    reached = next(n for n in (3, 5, 8, 12, 20) if all(pair.needed[n] is not None for pair in plan.pairs))
    assert conclusion(plan).startswith(f"With {reached} seeds and ")


def test_a_contrast_that_some_runs_lack_is_named_and_the_others_are_planned(finished_study):
    contrasts = [
        {"question": "Key?", "first": "base/sftkey-tag", "second": "base/sft-tag"},
        {"question": "More?", "first": "more/sftkey-tag", "second": "base/sft-tag"},
        {"question": "Same?", "first": "base/sft", "second": "base/sft"},
    ]
    overrides = ["study.variants={base: {}, more: {}}", f"study.contrasts={yaml.safe_dump(contrasts, width=1e9)}"]
    study = load_study([finished_study], overrides)
    plan = plan_study_power(study, 0.01)
    assert [(pair.first, pair.second) for pair in plan.pairs] == [("base/sftkey-tag", "base/sft-tag")]
    notes = "\n".join(power_notes(plan))
    assert "not used: more/sftkey-tag - base/sft-tag: no finished run has both with the same seed" in notes
    assert "not used: base/sft - base/sft: the difference is the same for every question" in notes


def test_seeds_that_vary_much_make_a_small_difference_unreachable(study_file, tmp_path):
    for seed in (0, 1, 2):
        write_answers(tmp_path / f"study/base/seed-{seed}", seed, {"sft": 0.5, "sft-tag": 0.3 + 0.2 * seed})
    plan = plan_study_power(load_study([study_file]), 0.01)
    assert "With 20 seeds it is not reachable that the comparison sees a difference of 0.01" in conclusion(plan)
    assert plan.pairs[0].least_seeds == pytest.approx((2.8016 * 0.2 / 0.01) ** 2, rel=0.5)
    assert conclusion(plan).endswith(f"it takes at least {plan.pairs[0].least_seeds:,} seeds.")
    assert any(note.startswith("no: not reachable with 3, 5, 8, 12 or 20 seeds") for note in power_notes(plan))


def test_what_is_missing_or_unjudged_is_counted(tmp_path):
    run = write_answers(tmp_path / "run", 0, {"sft": 0.5, "sft-tag": 0.5})
    file = run / "evaluation/sft/records.jsonl"
    RECORDS.write(file, [output_record("unjudged", id="q0"), *RECORDS.read(file)[1:-1]])
    plan = plan_run_power(run, 0.01)
    assert [(pair.num_questions, pair.left_out) for pair in plan.pairs] == [(198, 2)]
    assert "sft-tag - sft: 2 questions left out, which are missing or unjudged somewhere" in power_notes(plan)


def test_what_is_not_finished_names_the_command_that_finishes_it(study_file, tmp_path):
    with pytest.raises(DataError, match="no run of the study is finished; `sftkey run` with its configuration"):
        plan_study_power(load_study([study_file]), 0.01)
    with pytest.raises(DataError, match="run `sftkey run` with this run_dir first"):
        plan_run_power(tmp_path / "run", 0.01)
    with pytest.raises(DataError, match="only one strategy"):
        plan_run_power(write_answers(tmp_path / "run", 0, {"sft": 0.5}), 0.01)


def test_the_command_prints_the_plan_of_a_study_and_of_a_run(finished_study, tmp_path):
    said = shown(finished_study, "--difference", "0.05")
    assert "that it takes to see 0.05" in said
    assert "- base/sft" in said
    assert "With " in said.splitlines()[-1]
    run = f"run_dir={tmp_path / 'study/base/seed-0'}"
    assert "models of one seed" in shown(ROOT / "configs/quickstart.yaml", run)


@pytest.mark.parametrize("options", ["--power --nodes 2", "--power --ranks 2", "--difference 0.02"])
def test_options_that_do_not_go_together_are_refused(finished_study, options):
    done = CliRunner().invoke(app, ["plan", str(finished_study), *options.split()])
    assert isinstance(done.exception, ConfigError)
    assert "leave" in str(done.exception)


def test_the_command_loads_neither_torch_nor_ray(finished_study):
    script = (
        f"import sys\nfrom sftkey_dist.cli import app\napp(['plan', {str(finished_study)!r}, '--power'], "
        f"standalone_mode=False)\nprint({{'torch', 'ray', 'transformers', 'matplotlib'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
