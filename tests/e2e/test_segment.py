"""From whole responses to a prepared store, by the command line."""

import json

import pytest

from tests.chat_server import chat_server
from tests.e2e.conftest import error_line

pytestmark = [pytest.mark.single_process, pytest.mark.slow]  # each starts the command line


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def test_rules_then_a_model_then_preparation(sftkey, tiny_config, tmp_path):
    rows = [{"prompt": f"{i} + 1?", "response": f"{i} plus one.\n#### {i + 1}"} for i in range(20)]
    rows.append({"prompt": "Help?", "response": "The river rose over the wall, so what the harbour needs is help"})
    write(tmp_path / "in.jsonl", rows)

    def reply(messages):
        reasoning, _, answer = json.loads(messages[-1]["content"])["response"].rpartition(" is ")
        return json.dumps({"reasoning": reasoning, "answer": answer})

    with chat_server(reply) as server:
        arguments = ("in.jsonl", "out.jsonl", f"endpoint.url={server.url}", "endpoint.model=m", "--rules", "default")
        done = sftkey("segment", *arguments)
    assert done.returncode == 0, done.stderr
    assert "21 of 21 rows segmented (100.0%)" in done.stdout
    assert [line for line in done.stdout.splitlines() if "segmenting: 21/21" in line]
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert report["accepted"] == {"hash_marks": 20, "model": 1}

    prepared = sftkey("prepare", tiny_config, "data.train={adapter: records, path: out.jsonl}")
    assert prepared.returncode == 0, prepared.stderr
    assert "21 of 21 rows kept, none dropped" in prepared.stdout


def test_mistakes_are_one_line(sftkey, tmp_path):
    write(tmp_path / "in.jsonl", [{"text": "x"}])
    for arguments, expected in [
        (("nowhere.jsonl", "out.jsonl"), "nowhere.jsonl: no such data file"),
        (("in.jsonl", "out.jsonl", "--rules", "hash_mark"), "rules.0"),
        (("in.jsonl", "out.jsonl", "contrac.container=json"), "contrac: unknown key"),
        (("in.jsonl", "in.jsonl"), "would be overwritten by this command"),
    ]:
        done = sftkey("segment", *arguments)
        assert done.returncode == 2
        assert expected in error_line(done)
        assert not (tmp_path / "out.jsonl").exists()
    done = sftkey("segment", "in.jsonl", "out.jsonl")
    assert done.returncode == 2
    assert "none of the 1 rows has a response" in error_line(done)
    assert "the row has 'text'" in error_line(done)
