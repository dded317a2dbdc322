"""One trained model, evaluated guided and free: what is exported with it, and how its scores are told apart."""

import json
import os
from collections import defaultdict

import pytest

from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import ServedModelConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console
from sftkey_dist.contract import Form
from sftkey_dist.contract.response_schema import RESPONSE_SCHEMA, response_schema
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.generation import Decoding
from sftkey_dist.evaluation.generation.guide import Guide
from sftkey_dist.evaluation.generation.served import ServedGenerator
from sftkey_dist.pipeline.run import run
from sftkey_dist.report.tables import comparison_table
from sftkey_dist.run_dir.artifacts.evaluation import SCORES
from sftkey_dist.tracking import NullTracker
from tests.model_server import model_server

CASES = [Example(f"case:{number}", f"Case {number}?", {}) for number in range(2)]
GRADES, DECISIONS = ("A", "B"), ("approve", "reject")


class Recording(NullTracker):
    """Keeps the names of what is logged."""

    def __init__(self):
        self.metrics, self.tags = defaultdict(set), []

    def start_run(self, key, name, parent, tags):
        self.tags.append(dict(tags))
        return key

    def has_finished(self, key):
        return False

    def log_scores(self, run_id, scores, model_of):
        self.metrics[run_id] |= {name for measured in scores for name in measured.values}


@pytest.fixture(scope="module")
def cluster():
    os.environ.pop("RAY_ADDRESS", None)
    with connected(ClusterConfig(num_workers=1), 1):
        yield


@pytest.fixture
def barely_trained(tmp_path):
    """A run of one step, after which a model keeps no format."""
    rows = [
        {"prompt": f"Case {number}?", "grade": GRADES[number % 2], "decision": DECISIONS[number % 2]}
        for number in range(8)
    ]
    for name, some in (("train", rows), ("test", [row | {"prompt": f"Another: {row['prompt']}"} for row in rows])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2}
    return RunConfig.model_validate(
        {
            "run_dir": tmp_path / "run",
            "model": {"embedded": shape | {"num_heads": 2, "num_kv_heads": 1}},
            "data": {
                "train": {"adapter": "records", "path": str(tmp_path / "train.jsonl")},
                "test": {"adapter": "records", "path": str(tmp_path / "test.jsonl"), "name": "cases"},
                "max_length_tokens": 128,
                "store_dir": tmp_path / "store",
                "num_workers": 1,
            },
            "contract": {
                "container": "json",
                "segments": [
                    {"name": "grade", "delimiter": "Grade: ", "check": {"one_of": GRADES}},
                    {"name": "decision", "key": True, "delimiter": "\nSo: ", "check": {"one_of": DECISIONS}},
                ],
            },
            "strategies": ["sft", "sft-tag"],
            "optimization": {"global_batch_size": 8, "max_steps": 1},
            "training": {"micro_batch_tokens": 512, "precision": "float32"},
            "evaluation": {"guided": True, "max_new_tokens": 64, "batch_size": 8},
            "cluster": {"num_workers": 1},
            "tracking": {"enabled": False},
        }
    )


def shown(comparison):
    with console.capture() as capture:
        console.print(comparison_table(comparison))
    return capture.get()


@pytest.mark.slow
def test_one_model_is_evaluated_guided_and_free(cluster, barely_trained, capsys):
    guided_tracker, free_tracker = Recording(), Recording()
    result = run(barely_trained, guided_tracker)
    guided, files = result.comparison, result.files
    for row in guided.rows:
        assert row.guided
        assert (row.scores.format, row.scores.truncated, row.scores.n) == (1.0, 0, 8)
    page, markdown, table = (
        next(file for file in files if file.suffix == suffix) for suffix in (".html", ".md", ".json")
    )
    assert '<h2 id="scores">Scores, guided</h2>' in page.read_text()
    assert "Guided decoding: an output that ends keeps the format" in markdown.read_text()
    assert [row["guided"] for row in json.loads(table.read_text())["rows"]] == [True, True]
    assert "cases, guided: score" in shown(guided)

    models = {row.strategy: row.stage_dirs()[-1].model for row in guided.rows}
    tagged, plain = models["sft-tag"], models["sft"]
    schema = json.loads((tagged / RESPONSE_SCHEMA).read_text())
    assert schema == response_schema(barely_trained.contract, Form.TAGGED)
    assert schema["properties"]["decision"]["enum"] == list(DECISIONS)
    assert f"schema in `{RESPONSE_SCHEMA}`" in (tagged / "README.md").read_text()
    assert not (plain / RESPONSE_SCHEMA).exists()
    assert RESPONSE_SCHEMA not in (plain / "README.md").read_text()
    keeps_its_format_when_served(barely_trained, tagged)

    settings = barely_trained.evaluation.model_copy(update={"guided": False})
    capsys.readouterr()
    free = run(barely_trained.model_copy(update={"evaluation": settings}), free_tracker).comparison
    assert capsys.readouterr().out.count("not trained again") == 2, "stages do not depend on it"
    assert [row.scores.format for row in free.rows] == [0.0, 0.0]
    assert {row.evaluation for row in free.rows}.isdisjoint(row.evaluation for row in guided.rows)
    assert "guided" not in shown(free)
    assert SCORES.read(barely_trained.run_dir / free.rows[0].evaluation / "scores.json").guided is None

    assert guided_tracker.metrics
    names = [set().union(*tracker.metrics.values()) for tracker in (guided_tracker, free_tracker)]
    assert names[0] == {f"guided/{name}" for name in names[1]}
    assert any(tags.get("sftkey.guided") == "true" for tags in guided_tracker.tags)
    assert not any("sftkey.guided" in tags for tags in free_tracker.tags)


def keeps_its_format_when_served(config, folder):
    """The exported folder behind a server, which constrains by the schema that lies in it if it is asked to."""
    guide = Guide(config.contract, Form.TAGGED)
    with model_server(folder, frozenset({"response_format"})) as server:
        settings = ServedModelConfig(url=server.url, model="m", api="chat", concurrency=1)
        generator = ServedGenerator(settings, "none", folder, config.prompt, False)
        kept = [
            [config.contract.parse(text.text, Form.TAGGED).keeps_contract for (text,) in generator.generate(CASES, how)]
            for how in (Decoding(64, guide=guide), Decoding(64))
        ]
    assert kept == [[True, True], [False, False]]
