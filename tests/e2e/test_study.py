"""A real study: runs side by side, each a command with a cluster of its own, and the page they make."""

import json

import yaml


def test_a_study_runs_every_seed_and_writes_a_page(sftkey, tiny_config, tmp_path):
    config = yaml.safe_load(tiny_config.read_text())
    config |= {
        "run_dir": "studies/tiny",
        "strategies": ["sft-tag"],
        "cluster": {"num_workers": 1},
        "study": {"title": "Tiny", "seeds": [1, 2], "runs_at_a_time": 2, "variants": {"base": {}}},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    done = sftkey("run", file)
    assert done.returncode == 0, done.stdout + done.stderr
    for seed in (1, 2):
        run = tmp_path / "studies/tiny/base" / f"seed-{seed}"
        assert json.loads((run / "config.json").read_text())["seed"] == seed
        assert f"base/seed-{seed}: done after" in done.stdout
    page = (tmp_path / "studies/tiny/RESULTS.md").read_text()
    assert "# Results" in page
    assert "| sft-tag | " in page
    assert " 2 x 8 |" in page
    assert (tmp_path / "studies/mlflow.db").is_file(), "both track to one store"
    assert list((tmp_path / "studies/mlartifacts").iterdir()), "and keep artifacts beside it"
    assert not list((tmp_path / "studies/tiny").rglob("mlartifacts"))
    again = sftkey("run", file)
    assert "done after" not in again.stdout, "what is done is not done again"
    assert sftkey("results", "nowhere").returncode == 2
