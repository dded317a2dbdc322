"""A user's mistake is one clear line and exit code 2, and nothing is written."""

import json
import shutil
import subprocess

import pytest

from sftkey_dist.release import version
from tests.e2e.conftest import ENTRY_POINT, environment, error_line

pytestmark = [pytest.mark.single_process, pytest.mark.slow]  # each starts the command line


@pytest.fixture
def untouched(tmp_path):
    """Check that a failed command wrote no run."""
    yield
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("untouched")
class TestMistakes:
    @pytest.mark.parametrize(
        ("overrides", "expected"),
        [
            (["optimization.learning_rat=1"], "optimization.learning_rat: unknown key"),
            (["data.train={adapter: gsm8k, path: nowhere.jsonl}"], "nowhere.jsonl: no such data file"),
            (["model.path=./nowhere"], "no such model folder"),
            (
                ["strategies=[{name: own, stages: [{name: a, weights: {anwser: 1}}]}]"],
                "unknown segment 'anwser' in weights",
            ),
        ],
    )
    def test_configuration(self, sftkey, tiny_config, overrides, expected):
        done = sftkey("run", tiny_config, *overrides)
        assert done.returncode == 2
        assert expected in error_line(done)

    def test_missing_configuration_file(self, sftkey):
        done = sftkey("run", "nowhere.yaml")
        assert done.returncode == 2
        assert "nowhere.yaml: no such configuration file" in error_line(done)

    def test_row_without_an_answer(self, sftkey, tiny_config, tmp_path):
        rows = [{"question": "q", "answer": "a\n#### 1"}, {"question": "q", "answer": "no mark"}]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        done = sftkey("run", tiny_config, "data.train={adapter: gsm8k, path: rows.jsonl}")
        assert done.returncode == 2
        assert "rows.jsonl:2: no_answer" in error_line(done)

    def test_model_folder_without_tokenizer(self, sftkey, tiny_config, tiny_model, tmp_path):
        shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("token*", "*.jinja"))
        done = sftkey("run", tiny_config, "model.path=./bare")
        assert done.returncode == 2
        assert "bare: no tokenizer" in error_line(done)


def test_an_odd_terminal_that_goes_away_is_no_error(tiny_config, tmp_path):
    odd = {"TERM": "dumb", "COLUMNS": "10", "PYTHONIOENCODING": "ascii"}
    process = subprocess.Popen(
        [*ENTRY_POINT, "prepare", tiny_config, "run_dir=runs/[odd] ünï :smile: 50%25"],
        cwd=tmp_path,
        env=environment() | odd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 0, said
    assert "Traceback" not in said
    assert (tmp_path / "runs" / "[odd] ünï :smile: 50%25" / "data_report.json").is_file()


def test_names_that_cannot_be(sftkey, tiny_config):
    for arguments in (("prepare", "x" * 300), ("prepare", tiny_config, f"run_dir={'x' * 300}"), ("compare", "x" * 300)):
        done = sftkey(*arguments)
        assert done.returncode == 2
        assert "File name too long" in error_line(done)


def test_a_folder_that_cannot_be_sent_is_named_before_any_cluster_is_asked(sftkey, tiny_config):
    paths = ("run_dir=/shared/run", "data.store_dir=/shared/store")
    done = sftkey("submit", tiny_config, *paths, "--working-dir", "nowhere", "--address", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "--working-dir nowhere: there is no such folder" in error_line(done)


def test_comparing_what_is_no_run(sftkey, tmp_path):
    done = sftkey("compare", "nowhere")
    assert done.returncode == 2
    assert "no such folder; run `sftkey run`" in error_line(done)


def test_evaluating_before_training(sftkey, tiny_config):
    done = sftkey("evaluate", tiny_config)
    assert done.returncode == 2
    assert "not trained yet" in error_line(done)


def test_help_explains_verbs_and_keys(sftkey):
    overview, run = sftkey("--help"), sftkey("run", "--help")
    assert sftkey("--version").stdout == f"sftkey_dist {version()}\n"
    for verb in ("run", "prepare", "show", "segment", "plan", "train", "evaluate", "compare"):
        assert f" {verb} " in overview.stdout
    for key in ("optimization.learning_rate = 1e-05", "data.max_length_tokens = 1024", "KEY=VALUE"):
        assert key in run.stdout
