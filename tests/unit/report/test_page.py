"""The page: whole, without network, for any number of strategies, and unharmed by what models write."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sftkey_dist.errors import DataError
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.published import published_rows
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS, SUMMARY, SampleYield
from sftkey_dist.sampler.stats import BalanceStats
from tests.finished_run import write_run
from tests.records import nll, stage_summary, step_metrics

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & \u2028 {{ 7 * 7 }}'
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what tests look at."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.unbalanced = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


def page_of(run):
    _, files = compare([run])
    return (run / "comparison.html").read_text(encoding="utf-8"), files


def test_no_strategy_is_an_error_that_says_so(tmp_path):
    with pytest.raises(DataError, match="no strategy to compare"):
        compare([write_run(tmp_path / "empty", {})])


@pytest.mark.parametrize("number", [1, 12])
def test_the_page_is_whole_for_any_number_of_strategies_and_needs_no_network(tmp_path, number):
    text, files = page_of(write_run(tmp_path / "study", {f"s{i}": i for i in range(number)}))
    page = Page(text)
    assert not page.unbalanced
    assert not page.open
    assert all(link.startswith("#") for link in page.links), "nothing is loaded"
    assert "http://" not in re.sub(r'xmlns[^"]*"[^"]*"|<metadata>.*?</metadata>', "", text, flags=re.DOTALL)
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    table = text[text.index('id="scores"') : text.index('id="pairs"')]
    assert all(f"<td>s{i}</td>" in table for i in range(number))
    figures = [a for tag, a in page.tags if a.get("role") == "img"]
    assert len(figures) == len(files) - 3
    assert all(len(figure["aria-label"]) > 30 for figure in figures), "figures have words for whoever cannot see them"
    for target in (link[1:] for link in page.links if not link.startswith("#m") and len(link) < 12):
        assert target in page.ids


def test_the_result_comes_first_cost_last_and_findings_lead_to_outputs(tmp_path):
    text, _ = page_of(write_run(tmp_path / "study", {"sft": 3, "sftkey-tag": 12}))
    titles = re.findall(r'<figure role="group" aria-label="([^"]+)"', text)
    assert (titles[0], titles[-1]) == ("Accuracy and format", "Waiting for the slowest rank")
    assert text.index('id="outputs"') < text.index('id="cost"') < text.index('aria-label="Throughput"')
    failures = Page(text[text.index('id="failures"') : text.index('id="outputs"')])
    assert "#question=q12" in failures.links
    assert "<th>unjudged</th>" not in text, "a column of zeros says nothing"
    assert "<th>cut off</th>" in text


def test_the_page_says_what_each_strategy_trains(tmp_path):
    run = write_run(tmp_path / "run", {"sft-tag": 12, "sftkey-tag": 15})
    summary = StageDir(run / "stages" / "key-2").summary
    content = json.loads(summary.read_text())
    # prompt, end of turn, and of each segment what is before it, its text and what is after it
    content["inputs"]["weights"] = [0.2, 0, 0, 0, 0, 0, 1, 0]
    summary.write_text(json.dumps(content))
    text, _ = page_of(run)
    assert "sft-tag trains reasoning, answer, marks, end of turn. " in text
    assert "sftkey-tag trains reasoning, answer, marks, end of turn, then answer, prompt. " in text


def test_ranks_that_wait_for_none_are_not_drawn(tmp_path):
    run = write_run(tmp_path / "study", {"sft": 3})
    alone = [
        step_metrics(step, segments={"answer": nll(1.0)}, balance=BalanceStats(1.0, 1.0, 1.0, 1.0, 0.0))
        for step in range(4)
    ]
    METRICS.write(run / "stages/full-1/metrics.jsonl", alone)
    text, _ = page_of(run)
    assert "Waiting for the slowest rank" not in text
    assert 'aria-label="Throughput"' in text


def test_what_models_write_is_text(tmp_path):
    text, _ = page_of(write_run(tmp_path / "study", {"sft": 3, "sft-tag": 5}, HOSTILE, name="<b>set</b>"))
    assert not Page(text).unbalanced
    assert text.count("<script") == 2
    assert "<img" not in text
    assert "<b>set" not in text
    data = re.search(r'<script type="application/json" id="questions">(.*?)</script>', text, re.DOTALL).group(1)
    questions = json.loads(data)
    assert questions[0]["outputs"]["sft"]["text"] == HOSTILE, "and all of it is there"
    assert {question["outputs"]["sft"]["verdict"] for question in questions[:2]} != {"correct"}, "differing ones first"


def test_settings_of_several_runs_are_compared_and_the_papers_rows_stand_beside_the_same_model(tmp_path):
    runs = [write_run(tmp_path / "a", {"sft": 3}), write_run(tmp_path / "b", {"sft": 3, "sft-tag": 4})]
    compare(runs, tmp_path / "both.json")
    text = (tmp_path / "both.html").read_text()
    differing = text[text.index("Settings that differ") :]
    assert "<td>seed</td>" in differing[: differing.index("</table>")]
    assert "run_dir" not in differing[: differing.index("</table>")]
    assert "0.8048" in text
    assert published_rows("Qwen/Qwen2.5-7B", {"records"}) == []
    assert published_rows("./my-model", {"gsm8k"}) == []
    assert published_rows(None, {"gsm8k"}) == []


def test_a_model_card_holds_facts(tmp_path):
    run = write_run(tmp_path / "study", {"sft-tag": 10, "sftkey-tag": 18})
    (facts,) = read_facts([run])
    card = model_card(read_comparison([run]).rows[1], facts)
    assert card.startswith("---\nlibrary_name: transformers\nbase_model: Qwen/Qwen2.5-7B\n")
    assert "- accuracy 0.900 [0.70, 0.97]" in card
    assert "| key | 4 | 100 | 9 | 2 | 11 |" in card
    assert "torch: 2.13.0" in card


def test_the_page_and_the_card_say_that_a_model_was_trained_on_its_own_responses(tmp_path):
    run = write_run(tmp_path / "study", {"sft-tag": 10, "sftkey-tag": 18})
    found = SampleYield(40, 30, "skip", 80, {"accepted": 50, "truncated": 30}, 800)
    SUMMARY.write(run / "stages/key-2/stage.json", stage_summary(own_responses=found))
    words = "30 of 40 rows (75.0%) have an accepted response of the model's own, the others are left out; 80 samples: "
    text, _ = page_of(run)
    assert text.count(f"<small>({words.replace(chr(39), '&#39;')}accepted: 50, truncated: 30)</small>") == 1
    (facts,) = read_facts([run])
    cards = [model_card(row, facts) for row in read_comparison([run]).rows]
    assert [f"Stage key: {words}" in card for card in cards] == [False, True]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"prompt.template": '"auto"', "prompt.system": '"Be \\"brief\\"."'},
            '"content": "Be \\"brief\\"."}, {"role": "user"',
        ),
        (
            {"prompt.template": '"plain"', "prompt.plain": '"Q: {prompt}\\nA:"'},
            '"Q: {prompt}\\nA:".replace("{prompt}", "…")',
        ),
    ],
)
def test_a_model_card_shows_how_to_load_the_model(tmp_path, settings, expected):
    run = write_run(tmp_path / "study", {"sft-tag": 10})
    (facts,) = read_facts([run])
    (row,) = read_comparison([run]).rows
    model = row.stage_dirs()[-1].model
    model.mkdir(exist_ok=True)
    (model / "chat_template.jinja").write_text("")
    card = model_card(row, replace(facts, settings=facts.settings | settings))
    _, code, _ = re.split(r"```python\n|```\n", card, maxsplit=2)
    assert expected in code
    compile(code, "card", "exec")
