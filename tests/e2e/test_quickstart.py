"""The shipped quickstart, whole: what it learns is what the paper reports in kind, with slack."""

import json
from pathlib import Path

import pytest

from sftkey_dist.data.memos import generate_memos

pytestmark = pytest.mark.long

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def majority_share() -> float:
    answers = [memo.values["answer"] for memo in generate_memos("test", 300, seed=0)]
    return max(answers.count(answer) for answer in set(answers)) / len(answers)


def test_quickstart_learns_format_and_decision(sftkey, tmp_path, majority_share):
    # Without sft and key-tag, which other tests train: they would take two minutes more.
    done = sftkey("run", CONFIG, "strategies=[sft-tag, sftkey-tag]", timeout_seconds=900)
    assert done.returncode == 0, done.stderr
    assert "mlflow ui --host 127.0.0.1" in done.stdout
    rows = json.loads((tmp_path / "runs" / "quickstart" / "comparison.json").read_text())["rows"]
    by_name = {row["strategy"]: row for row in rows}
    assert list(by_name) == ["sft-tag", "sftkey-tag"]
    assert all(row["n"] == 300 and row["unjudged"] == 0 for row in rows)

    assert by_name["sft-tag"]["format"] >= 0.9
    assert by_name["sft-tag"]["accuracy"] > majority_share + 0.1, "clearly above always guessing the commonest"
    assert by_name["sftkey-tag"]["format"] >= 0.9
    (stage_2,) = (tmp_path / "runs" / "quickstart" / "stages").glob("tagged-full-key-*/stage.json")
    guard = json.loads(stage_2.read_text())["guard"]
    assert guard["evaluations"] == 5
    assert guard["kept_score"] >= max(guard["first_score"], guard["last_score"]) > 0
    assert "guard kept the model after step" in done.stdout
    assert by_name["sftkey-tag"]["score"] >= by_name["sft-tag"]["score"] - 0.03, "the key stage does not harm"
