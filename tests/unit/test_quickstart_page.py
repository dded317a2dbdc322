"""The example of the quickstart page with rows of one's own is complete."""

from sftkey_dist.config import load_config
from sftkey_dist.data.whole import read_all
from sftkey_dist.evaluation.answers.choose import checks_in_words, choose_checks
from tests.markdown import ROOT, block

PAGE = ROOT / "docs" / "quickstart.md"


def test_its_script_writes_the_rows_that_its_configuration_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block(PAGE, "python", "generate_memos"), str(PAGE), "exec"), {})
    (tmp_path / "my.yaml").write_text(block(PAGE, "yaml", "train.csv"))
    config = load_config([tmp_path / "my.yaml"], [])
    train, refused = read_all("train", config.data.train_sources, config.contract, 0.0)
    test, refused_in_test = read_all("test", config.data.test_sources, config.contract, 0.0)
    assert (len(train), len(test), refused, refused_in_test) == (3000, 200, [], [])
    assert {example.values["decision"] for example in test} == {"APPROVE", "REVIEW", "REJECT"}
    quoted = block(PAGE, "text", "answer checks")
    checks = choose_checks(config.data.test_sources, config.contract, config.evaluation)
    assert f"{checks_in_words(checks)}\n" in quoted
    assert "3,000 of 3,000 rows kept" in quoted
