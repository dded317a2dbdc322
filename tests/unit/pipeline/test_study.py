"""Studies: the runs they stand for, doing them, and the page about them."""

import datetime
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from sftkey_dist.cli import app
from sftkey_dist.cli.arguments import load_run_config
from sftkey_dist.config import is_study, load_study
from sftkey_dist.config.yaml_text import read_yaml
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.evaluation.statistics import wilson_interval
from sftkey_dist.pipeline.study import runs as pipeline
from sftkey_dist.pipeline.study.runs import make_results, run_study
from sftkey_dist.report.study.evidence import Evidence
from sftkey_dist.report.study.runs import done_with, forget_done, note_done

ROOT = Path(__file__).parents[3]
SMOLLM2_ON_TWO_CORES = ["study_smollm2", "study_smollm2_files", "study_smollm2_cpu"]
BASE = {
    "model": {"embedded": {}},
    "data": {
        "train": {"adapter": "decision_memos", "limit": 8},
        "test": {"adapter": "decision_memos", "split": "test", "limit": 4},
    },
    "study": {
        "title": "Rates",
        "seeds": [3, 5],
        "runs_at_a_time": 2,
        "variants": {"slow": {}, "fast": {"about": "ten times", "config": {"optimization": {"learning_rate": 1e-4}}}},
        "contrasts": [{"question": "Faster?", "first": "fast/sftkey-tag", "second": "slow/sftkey-tag"}],
    },
}
CURVE = "{question: q, x_label: rate, series: {gain: [{x: X, first: fast/sftkey-tag, second: fast/sft}]}}"
# Stands for `sftkey run`: scores that are told by variant, seed and strategy.
STAND_IN = """
import json, os, pathlib, sys, time, yaml
config = yaml.safe_load(open(sys.argv[-1]))
run = pathlib.Path(config["run_dir"])
(run / "started").touch()
time.sleep(float(os.environ.get("STAND_IN_SECONDS", 0)))
if os.environ.get("STAND_IN_FAILS") == f"{run.parent.name}/{run.name}":
    sys.exit(print("error: the model is gone") or 2)
fast, seed = config["optimization"]["learning_rate"] > 5e-5, config["seed"]
stage = {"name": "full", "steps": 2, "train_seconds": 1.5, "tokens": 100, "loss_tokens": 60, "world_size": 1}
rows = []
for number, strategy in enumerate(config["strategies"]):
    accuracy = 0.1 * number + 0.01 * seed * (1 + number / 10) + (0.2 if fast else 0)
    share = {"n": 8, "value": 0.125 * seed, "interval": [0.0, 1.0]}
    swapped = {name: share for name in ("right", "follows", "keeps", "neither", "carries")}
    swapped |= {"num_donors": 8, "unjudged": {}, "left_out": {}, "without_generated": {}}
    lost = [{"task": "arc_easy", "metric": "acc", "difference": -0.01 * seed}] if fast else None
    kappa = None if strategy == "sft-tag" else 0.01 * seed
    rows.append({"strategy": strategy, "n": 40, "accuracy": accuracy, "format": 1.0, "alpha": 0.7, "dataset": "memos",
                 "score": 0.7 * accuracy + 0.3, "stages": [stage], "capabilities": lost,
                 "swapped_reasoning": swapped if fast else None,
                 "agreement": {"judge_and_check": {"n": 3, "share": 0.5, "kappa": kappa}} if fast else {}})
(run / "comparison.json").write_text(json.dumps({"rows": rows}))
(run / "environment.json").write_text(json.dumps({"torch": "2.13.0"}))
"""


@pytest.fixture
def file(tmp_path, monkeypatch, empty_database) -> Path:
    shutil.copy(empty_database, tmp_path)
    script, file = tmp_path / "stand_in.py", tmp_path / "study.yaml"
    script.write_text(STAND_IN)
    file.write_text(yaml.safe_dump(BASE | {"run_dir": str(tmp_path / "study")}, sort_keys=False))
    monkeypatch.setattr(pipeline, "_COMMAND", [sys.executable, str(script)])
    return file


def test_a_study_is_every_variant_with_every_seed_and_overrides_win(file):
    assert is_study([file])
    assert not is_study([ROOT / "configs/quickstart.yaml"])
    study = load_study([file], ["optimization.num_epochs=2", "study.seeds=[7]"])
    assert [run.name for run in study.runs] == ["slow/seed-7", "fast/seed-7"]
    slow, fast = (run.config for run in study.runs)
    assert (slow.seed, slow.optimization.num_epochs, fast.optimization.num_epochs) == (7, 2, 2)
    assert (slow.optimization.learning_rate, fast.optimization.learning_rate) == (1e-5, 1e-4)
    assert slow.tracking.experiment == fast.tracking.experiment == "study"
    changed = load_study([file], ["optimization.learning_rate=0.5", "run_dir=elsewhere"])
    assert {run.config.optimization.learning_rate for run in changed.runs} == {0.5}
    assert changed.runs[0].config.run_dir == Path("elsewhere/slow/seed-3")


def test_a_run_is_done_again_when_its_data_changed_and_not_when_its_tracking_did(file, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "reasoning": "r", "answer": "a"}\n')
    data = [f"data.train={{adapter: records, path: {rows}}}", "study.seeds=[3]"]
    assert run_study(load_study([file], data), ["study.yaml"]) == []
    started = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("started")}
    assert len(started) == 2

    def started_again(*overrides) -> int:
        assert run_study(load_study([file], [*data, *overrides]), ["study.yaml"]) == []
        return sum(path.stat().st_mtime_ns != before for path, before in started.items())

    assert started_again("tracking.max_model_gib=0", "cluster.num_workers=1") == 0
    rows.write_text('{"prompt": "p", "reasoning": "r", "answer": "b"}\n')
    assert started_again() == 2


def test_results_of_an_earlier_configuration_are_none_of_the_study(file, monkeypatch):
    assert run_study(load_study([file]), ["study.yaml"]) == []
    monkeypatch.setenv("STAND_IN_FAILS", "fast/seed-3")
    study = load_study([file], ["optimization.num_epochs=7"])
    assert len(run_study(study, ["study.yaml"])) == 1
    page, _ = make_results([study.folder], file.with_name("RESULTS.md"), None)
    assert "**Not done yet:** fast/seed-3." in page.read_text()
    assert not (study.folder / "fast/seed-3/done.json").exists()


def test_a_variant_may_have_fewer_seeds_and_waits_for_no_others(file):
    study = load_study([file], ["study.variants.fast.num_seeds=1"])
    assert [run.name for run in study.runs] == ["slow/seed-3", "fast/seed-3", "slow/seed-5"]
    assert run_study(study, ["study.yaml"]) == []
    page, _ = make_results([study.folder], file.with_name("RESULTS.md"), keep=None)
    text = page.read_text()
    assert "Not done yet" not in text
    assert "| 2 x 40 |" in text
    assert "| 1 x 40 |" in text


def test_prompts_of_all_runs_print_one_date_also_of_those_that_are_done_on_another_day(file, monkeypatch):
    def dates_after(*overrides, day):
        monkeypatch.setattr(datetime, "date", type("date", (datetime.date,), {"today": classmethod(lambda cls: day)}))
        study = load_study([file], overrides)
        assert run_study(study, ["study.yaml"]) == []
        runs = [read_yaml((study.folder / run.name / "run.yaml").read_text()) for run in study.runs]
        return [run["prompt"]["date"] for run in runs]

    assert dates_after("study.seeds=[3]", day=datetime.date(2025, 1, 31)) == ["2025-01-31"] * 2
    assert dates_after(day=datetime.date(2025, 2, 1)) == ["2025-01-31"] * 4
    assert dates_after("prompt.date=2024-02-29", day=datetime.date(2025, 2, 1)) == ["2024-02-29"] * 4


def test_commands_for_one_run_say_what_a_study_is_for(file):
    with pytest.raises(ConfigError, match=r"study.yaml: the section study describes many runs, which `sftkey run` exe"):
        load_run_config([str(file)])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.seeds=[1,1]", "study.seeds must differ"),
        ("study.variants.fast.config={optimization: {learning: 1}}", "study.variants.fast: optimization.learning"),
        ("study.contrasts=[{question: q, first: a/b, second: slow/sft}]", "there is no such variant"),
        (f"study.curves=[{CURVE}]".replace("X", "nowhere/sft"), "curves: series: gain: nowhere/sft: there is no such"),
        (f"study.curves=[{CURVE}]".replace("X", "0"), "study.curves.0.series.gain.0.x"),
        ("study.repeats=3", "study.repeats: unknown key"),
        ("tracking=true", "tracking: "),
        ("tracking=false", "tracking: "),
        ("tracking=text", "tracking: "),
    ],
)
def test_mistakes_name_the_variant_and_the_key(file, override, message):
    with pytest.raises(ConfigError, match=message.replace("study.seeds must", "seeds must")):
        load_study([file], [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.contrasts=[{question: q, first: fast/sftkeytag, second: fast/sft}]", "did you mean fast/sftkey-tag?"),
        ("study.variants.fast={config: {seed: 5}}", "config: seed is set by the study"),
        ("study.variants.fast={config: {run_dir: x}}", "config: run_dir is set by the study"),
        ("study.variants.fast={num_seeds: 9}", "num_seeds=9, but there are 2"),
        ("study.seeds=[1,1]", "study.yaml, the command line: study: seeds must differ"),
    ],
)
def test_what_would_have_no_effect_or_fail_after_hours_is_refused(file, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_study([file], [override])


def test_studies_that_come_with_the_package_load():
    alone = [[path.stem] for path in ROOT.glob("configs/study_*.yaml") if path.stem not in SMOLLM2_ON_TWO_CORES[1:]]
    assert len(alone) >= 4
    for names in (*alone, SMOLLM2_ON_TWO_CORES):
        assert load_study([ROOT / f"configs/{name}.yaml" for name in names]).runs


@pytest.mark.parametrize("folder", sorted((ROOT / "tests/evidence").iterdir()), ids=lambda folder: folder.name)
def test_what_is_kept_is_described_as_its_configuration_describes_it(folder):
    names = SMOLLM2_ON_TWO_CORES if folder.name == SMOLLM2_ON_TWO_CORES[0] else [folder.name]
    settings = load_study([ROOT / f"configs/{name}.yaml" for name in names]).settings
    facts = Evidence.read(folder).facts
    assert (facts.title, facts.about, facts.limits) == (settings.title, settings.about, settings.limits)


def test_the_page_that_comes_with_the_package_is_made_from_what_is_kept_beside_it(tmp_path):
    kept = tmp_path / "tests/evidence"
    shutil.copytree(ROOT / "tests/evidence", kept)
    page, *_ = make_results(sorted(kept.iterdir()), tmp_path / "RESULTS.md", None)
    assert page.read_bytes() == (ROOT / "RESULTS.md").read_bytes()


def test_runs_are_done_once_and_a_failed_one_leaves_the_others_alone(file, monkeypatch, tmp_path):
    study = load_study([file])
    monkeypatch.setenv("STAND_IN_FAILS", "fast/seed-3")
    (failed,) = run_study(study, ["study.yaml"])
    assert failed.startswith("fast/seed-3: error: the model is gone (see ")
    page, _ = make_results([study.folder], tmp_path / "RESULTS.md", None)
    assert "**Not done yet:** fast/seed-3." in page.read_text()
    for started in study.folder.rglob("started"):
        started.unlink()
    monkeypatch.delenv("STAND_IN_FAILS")
    assert run_study(study, ["study.yaml"]) == []
    assert [str(path.parent.relative_to(study.folder)) for path in study.folder.rglob("started")] == ["fast/seed-3"]
    run_study(load_study([file], ["optimization.num_epochs=2"]), ["study.yaml"])
    assert len(list(study.folder.rglob("started"))) == 4, "what was done with other settings is done again"


def test_the_page_gives_means_over_seeds_and_is_the_same_from_a_copy(file, tmp_path):
    study = load_study([file])
    run_study(study, ["configs/study.yaml"])
    page, figure = make_results([study.folder], tmp_path / "RESULTS.md", tmp_path / "kept")
    said = page.read_text()
    assert "configs/study.yaml" in said
    # slow: 0.03 and 0.05 for sft, in which 0.04 (1 - 0.04) / 0.01^2 = 384 trials are
    low, high = wilson_interval(0.04 * 384, 384, 12.706205)
    assert f"| sft | 0.040 [{low:.3f}, {high:.3f}] | 1.000 [0.912, 1.000] |" in said
    assert "| Faster? | fast/sftkey-tag | slow/sftkey-tag | +0.200 in each of 2: no spread to test by |" in said
    assert said.count("| sft | arc_easy acc | -0.040 [-0.167, 0.087] | 2 |") == 1, "of fast alone"
    low, high = wilson_interval(0.5 * 16, 16, 12.706205)  # 0.5 (1 - 0.5) / 0.125^2 trials
    share = f"0.500 [{low:.3f}, {high:.3f}]"
    (line,) = [line for line in said.splitlines() if line.startswith(f"| sft-tag | {share} | {share}")]
    assert line.endswith("| +0.000 in each of 2: no spread to test by |  | 2 x 8 |")
    assert "SFTKey-Tag has a higher score than SFT" in said
    assert "**agrees**" in said
    assert "**disagrees**" in said, "key-tag keeps the format here"
    low, high = wilson_interval(1.5, 3)
    alike = f"0.500 [{low:.3f}, {high:.3f}]"
    assert f"| fast/sft | 80 | 6 | {alike} | 0.040 [-0.087, 0.167] |" in said, "judge and check"
    assert f"| fast/sft-tag | 80 | 6 | {alike} | undefined |" in said
    assert "| slow/sft | 80 |" not in said, "nobody judged there"
    assert "(kept/study/scores.svg)" in said
    assert figure.is_file()
    again, _ = make_results([tmp_path / "kept/study"], page, None)
    assert again.read_text() == said
    assert not list((tmp_path / "kept").rglob("run.log"))
    shutil.rmtree(study.folder)
    shutil.copytree(tmp_path / "kept/study", study.folder)
    assert run_study(study, ["configs/study.yaml"]) == []
    assert not list(study.folder.rglob("started")), "a study goes on from what was kept"


def test_a_folder_without_a_study_is_said_so(tmp_path):
    with pytest.raises(DataError, match="no study there"):
        make_results([tmp_path], tmp_path / "RESULTS.md", None)
    (tmp_path / "study.json").write_text('{"title": "of another version"}')
    with pytest.raises(DataError, match=r"about: Field required; .*renews it"):
        make_results([tmp_path], tmp_path / "RESULTS.md", None)


def test_results_of_another_version_are_named(file):
    study = load_study([file])
    run_study(study, ["study.yaml"])
    old = study.folder / "slow/seed-3/comparison.json"
    replace_comparison(old, {"rows": [{"strategy": "sft", "accuracy": 0.5}]})
    with pytest.raises(DataError, match=r"slow/seed-3/comparison.json: rows.0.n: Field required; remove done.json"):
        make_results([study.folder], file.with_name("RESULTS.md"), None)


@pytest.mark.parametrize(
    ("formats", "verdict"),
    [((0.99, 0.992), "agrees"), ((0.2, 0.22), "disagrees"), ((0.4, 0.95), "too noisy to tell")],
)
def test_the_paper_is_contradicted_only_beyond_noise(file, formats, verdict):
    study = load_study([file])
    run_study(study, ["study.yaml"])
    for seed, format_share in zip((3, 5), formats, strict=True):
        for variant in ("slow", "fast"):
            comparison = study.folder / f"{variant}/seed-{seed}/comparison.json"
            rows = json.loads(comparison.read_text())["rows"]
            replace_comparison(comparison, {"rows": [row | {"format": format_share} for row in rows]})
    page, _ = make_results([study.folder], file.with_name("RESULTS.md"), None)
    (line,) = [
        line for line in page.read_text().splitlines() if "SFTKey-Tag keeps the format" in line and "slow" in line
    ]
    assert f"**{verdict}**" in line


def test_a_contrast_that_could_not_have_been_seen_is_called_underpowered(file):
    study = load_study([file], ["study.seeds=[1,2,3]"])
    run_study(study, ["study.yaml"])
    for seed, accuracy in zip((1, 2, 3), (0.5, 0.7, 0.6), strict=True):
        comparison = study.folder / f"fast/seed-{seed}/comparison.json"
        rows = [row | {"accuracy": accuracy} for row in json.loads(comparison.read_text())["rows"]]
        replace_comparison(comparison, {"rows": rows})
        other = study.folder / f"slow/seed-{seed}/comparison.json"
        rows = [row | {"accuracy": 0.55} for row in json.loads(other.read_text())["rows"]]
        replace_comparison(other, {"rows": rows})
    page, _ = make_results([study.folder], file.with_name("RESULTS.md"), None)
    smallest = 5.6527 * 0.1 / math.sqrt(3)
    assert f"+0.050 [-0.198, +0.298], p 0.478, 2 up, 1 down | {smallest:.3f} |" in page.read_text()
    (warning,) = [line for line in page.read_text().splitlines() if line.startswith("Underpowered")]
    assert "was found for fast/sftkey-tag - slow/sftkey-tag, and a true one of 0.05" in warning


def run_with_every_answer_right_if_fast(file, *overrides) -> Path:
    study = load_study([file], list(overrides))
    run_study(study, ["study.yaml"])
    for comparison in study.folder.rglob("comparison.json"):
        correct = ("1" if comparison.parts[-3] == "fast" else "0") * 40
        rows = [
            row | {"outcomes": {"questions": "q", "correct": correct}}
            for row in json.loads(comparison.read_text())["rows"]
        ]
        replace_comparison(comparison, {"rows": rows})
    return study.folder


def replace_comparison(file, content) -> None:
    """Replace a run's comparison as if the run had made it."""
    digest = done_with(file.parent)
    file.write_text(json.dumps(content))
    note_done(file.parent, digest)


def test_a_comparison_that_another_command_has_replaced_is_none_of_the_study(file):
    study = load_study([file])
    run_study(study, ["study.yaml"])
    (study.folder / "slow/seed-3/comparison.json").write_text(json.dumps({"rows": []}))
    assert Evidence.read(study.folder).missing == ("slow/seed-3",)
    for started in study.folder.rglob("started"):
        started.unlink()
    assert run_study(study, ["study.yaml"]) == []
    assert [path.parent.name for path in study.folder.rglob("started")] == ["seed-3"]
    assert Evidence.read(study.folder).missing == ()


def test_what_is_kept_has_no_results_of_an_earlier_configuration(file, tmp_path):
    study = load_study([file])
    run_study(study, ["study.yaml"])
    make_results([study.folder], tmp_path / "RESULTS.md", tmp_path / "kept")
    forget_done(study.folder / "fast/seed-5")
    make_results([study.folder], tmp_path / "RESULTS.md", tmp_path / "kept")
    assert Evidence.read(tmp_path / "kept/study").missing == ("fast/seed-5",)


def test_a_study_is_not_kept_over_itself_or_over_another_of_its_name(file, tmp_path):
    study = load_study([file])
    run_study(study, ["study.yaml"])
    with pytest.raises(ConfigError, match="lies there already"):
        make_results([study.folder], tmp_path / "RESULTS.md", tmp_path)
    assert Evidence.read(study.folder).missing == (), "its runs are still done"
    other = shutil.copytree(study.folder, tmp_path / "other" / "study")
    with pytest.raises(ConfigError, match="several studies are called study"):
        make_results([study.folder, other], tmp_path / "RESULTS.md", tmp_path / "kept")


def test_an_error_of_an_earlier_attempt_is_not_repeated(file, monkeypatch):
    study = load_study([file])
    log = study.folder / "fast/seed-3/run.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: a mistake that was corrected since\n")
    script = "import os; print('at work', flush=True); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(pipeline, "_COMMAND", [sys.executable, "-c", script])
    assert f"fast/seed-3: ended by signal 9: at work (see {log})" in run_study(study, ["study.yaml"])


def test_data_that_are_away_when_a_run_should_start_fail_that_run_alone(file, monkeypatch, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"a": 1}\n')
    source = {"adapter": "records", "path": str(data), "prompt": "a"}
    monkeypatch.setattr(pipeline, "_is_done", lambda *_: False)  # it reads the data of every run before the first
    study = load_study(
        [file], ["study.runs_at_a_time=1", f"study.variants.slow={{config: {{data: {{train: {source}}}}}}}"]
    )
    data.unlink()
    failed = run_study(study, ["study.yaml"])
    assert [line.partition(": ")[0] for line in failed] == ["slow/seed-3", "slow/seed-5"]
    assert all("no such data file" in line for line in failed)
    assert len(list(study.folder.rglob("fast/*/comparison.json"))) == 2


def test_a_page_opens_with_the_study_of_the_most_seeds(file, tmp_path):
    few = run_with_every_answer_right_if_fast(file, "study.title=Few", "study.seeds=[1,2]", f"run_dir={tmp_path}/few")
    many = run_with_every_answer_right_if_fast(file, "study.title=Many", "study.seeds=[1,2,3]")
    page, *_ = make_results([few, many], tmp_path / "RESULTS.md", None)
    assert page.read_text().partition("## In short")[2].startswith("\n\nMany\n")


def test_a_difference_of_all_answers_is_told_without_a_test(file):
    folder = run_with_every_answer_right_if_fast(file, "study.seeds=[1,2,3]")
    page, *_ = make_results([folder], file.with_name("RESULTS.md"), None)
    right, wrong = "fast/sftkey-tag", "slow/sftkey-tag"
    said = f"**Yes.** {right} - {wrong}: every answer of {right} is right, and none of {wrong}."
    assert said in page.read_text()


def test_pairs_with_recorded_outcomes_are_tested_over_seeds_and_questions(file):
    curve = CURVE.replace("X", "0.5")
    study = load_study([file], ["study.seeds=[1,2,3]", "study.limits=Other models.", f"study.curves=[{curve}]"])
    run_study(study, ["study.yaml"])
    correct = {
        "fast": {"sft": "0" * 20 + "1" * 20, "sftkey-tag": "0" + "1" * 39},
        "slow": {"sftkey-tag": "0" * 30 + "1" * 10},
    }
    for comparison in study.folder.rglob("comparison.json"):
        of_variant = correct[comparison.parts[-3]]
        rows = [
            row | {"outcomes": {"questions": "q", "correct": of_variant[row["strategy"]]}}
            for row in json.loads(comparison.read_text())["rows"]
            if row["strategy"] in of_variant
        ]
        replace_comparison(comparison, {"rows": rows})
    page, figure, scores, curves = make_results([study.folder], file.with_name("RESULTS.md"), None)
    said = page.read_text()
    assert (scores.name, curves.name) == ("scores.svg", "curves-1.svg")
    assert "| gain | 0.5 | fast/sftkey-tag | fast/sft | **+0.475 [" in said
    assert said.count("All pairs in accuracy") == 1, "a single strategy has no pairs"
    (line,) = [line for line in said.splitlines() if line.startswith("| sftkey-tag | sft |")]
    low, high = interval_of_share(19, 40)
    assert line.startswith(f"| sftkey-tag | sft | **+0.475 [{low:+.3f}, {high:+.3f}]** | &lt; 0.0001 |")
    opening = said.partition("## In short")[2].partition("Made by")[0]
    low, high = interval_of_share(29, 40)
    found = f"+72.5 points ({100 * low:+.1f} to {100 * high:+.1f}), corrected p < 0.001."
    assert f"- Faster? **Yes.** fast/sftkey-tag - slow/sftkey-tag: {found}" in opening
    assert "| slow/sftkey-tag |" in opening
    assert "What this does not show: Other models." in opening
    assert "differences.svg)" in opening
    assert figure.is_file()


def test_a_table_of_very_many_pairs_is_a_sentence(file):
    names = [f"{{name: s-{number}, stages: [{{name: all, weights: {{answer: 1}}}}]}}" for number in range(11)]
    study = load_study([file], [f"strategies=[{', '.join(names)}]", "study.contrasts=[]"])
    run_study(study, ["study.yaml"])
    for comparison in study.folder.rglob("comparison.json"):
        rows = json.loads(comparison.read_text())["rows"]
        for number, row in enumerate(rows):
            row["strategy"], row["outcomes"] = f"s-{number}", {"questions": "q", "correct": "01" * 20}
        replace_comparison(comparison, {"rows": rows})
    page, *_ = make_results([study.folder], file.with_name("RESULTS.md"), None)
    assert page.read_text().count("The 55 pairs of strategies are too many for a table of all.") == 2


def interval_of_share(differing, questions):
    """Of a share of questions that one of two strategies alone answers correctly, the same in each seed."""
    observed = [1.0] * differing + [0.0] * (questions - differing)
    return stats.ttest_1samp(observed, 0).confidence_interval(0.95)


@pytest.mark.slow
def test_a_signal_reaches_the_runs_and_waits_for_them(file, tmp_path):
    script = f"""
import sys
from sftkey_dist.interrupts import raise_on_signals
from sftkey_dist.config import load_study
from sftkey_dist.errors import InterruptedRunError
from sftkey_dist.pipeline.study import runs as study
from pathlib import Path
study._COMMAND = [sys.executable, {str(tmp_path / "stand_in.py")!r}]
raise_on_signals()
try:
    study.run_study(load_study([Path({str(file)!r})]), [])
except InterruptedRunError as error:
    sys.exit(128 + error.signal_number)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"STAND_IN_SECONDS": "600"}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "study").rglob("started"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    working = subprocess.run(["pgrep", "-f", str(tmp_path / "stand_in.py")], capture_output=True, text=True)
    assert not working.stdout


def test_a_study_that_is_told_twice_to_end_waits_for_its_runs_all_the_same(tmp_path):
    run = """
import signal, sys, time
def save(*_):
    time.sleep(3)
    open("saved", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, save)
open("started", "w").close()
time.sleep(60)
"""
    study = """
import subprocess, sys, time
from types import SimpleNamespace
from sftkey_dist.interrupts import raise_on_signals
from sftkey_dist.pipeline.study.runs import _ended_with_this_process
raise_on_signals()
with _ended_with_this_process() as at_work:
    at_work.append(SimpleNamespace(process=subprocess.Popen([sys.executable, "-c", sys.argv[1]])))
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", study, run], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(1.3)  # signals that follow sooner count as one
    process.wait(30)
    assert (tmp_path / "saved").exists()


def test_a_page_of_one_study_is_written_beside_it_and_its_means_are_printed(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = load_study([file])
    run_study(study, ["study.yaml"])
    kept = tmp_path / "kept"
    for arguments in ([], ["--keep", str(kept)]):
        done = CliRunner().invoke(app, ["results", str(study.folder), *arguments])
        assert done.exit_code == 0, done.output
        assert "sftkey-tag" in done.output
        assert "Faster? fast/sftkey-tag - slow/sftkey-tag: accuracy +0.200 in each of 2" in done.output
    assert (study.folder / "RESULTS.md").is_file()
    assert (kept / study.folder.name / "RESULTS.md").is_file()
    assert not (tmp_path / "RESULTS.md").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "strategies.json").write_text("{}")
    with pytest.raises(DataError, match="a run, and not a study of several runs; `sftkey compare"):
        Evidence.read(tmp_path / "run")
