"""Judges behind a real server that fails in every way, asked over real Ray; nothing is lost, nothing wrong."""

import json
import os
import signal

import psutil
import pytest

from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import JudgeConfig, LocalJudgeConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.judge.jury import make_jury
from sftkey_dist.evaluation.judge.template import Question
from tests.distributed.harness import free_port
from tests.judge_server import judge_server

pytestmark = pytest.mark.long

CLUSTER = ClusterConfig(num_workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One private cluster for all; not the one that the person running the tests may use."""
    os.environ.pop("RAY_ADDRESS", None)
    with connected(CLUSTER, 2):
        yield


def questions(number):
    """Every other answer is right; whoever compares texts can tell."""
    return [Question(f"question {i}", f"answer {i}", f"answer {i if i % 2 else -i - 1}") for i in range(number)]


def expected(number):
    return ["correct" if i % 2 else "incorrect" for i in range(number)]


def endpoint(server, **settings):
    return EndpointConfig(
        **{"url": server.url, "model": "judge", "concurrency": 16, "timeout_seconds": 1.0, "max_retries": 8} | settings
    )


def jury(tmp_path, *judges, **settings):
    return make_jury(JudgeConfig(judges=judges, **settings), tmp_path, CLUSTER, 1)


def quiet(done):
    pass


def test_faults_lose_no_verdict_and_make_none_wrong_and_nothing_is_asked_twice(tmp_path):
    with judge_server(share_429=0.1, share_500=0.05, share_hang=0.02, share_garbage=0.02, share_error=0.05) as server:
        results, use = jury(tmp_path, endpoint(server)).judge(questions(200), quiet)
        assert [result.value for result in results] == expected(200)
        assert (use.asked, use.remembered, not use.failures) == (200, 0, True)
        counts = server.counts()
        assert all(counts[fault] for fault in ("429", "500", "hang", "garbage", "error")), "every fault was met"
        results, use = jury(tmp_path, endpoint(server)).judge(questions(200), quiet)
        assert [result.value for result in results] == expected(200)
        assert (use.asked, use.remembered) == (0, 200)
        assert server.counts()["requests"] == counts["requests"]


def test_a_server_of_another_make_is_asked_as_it_takes_it_and_read_as_it_writes(tmp_path, capsys):
    """It takes no temperature, its model thinks, and the template has opened the thinking."""
    with judge_server(refuses="temperature", before="The two are alike.\n</think>\n\n") as server:
        results, use = jury(tmp_path, endpoint(server, concurrency=4)).judge(questions(20), quiet)
        assert server.counts()["refused"] == 1, "the first question, which is asked alone, tells"
    assert [result.value for result in results] == expected(20)
    (note,) = use.notes
    assert "judge judge: the server takes no temperature" in note
    assert capsys.readouterr().out.count(note) == 1


def test_an_error_in_every_reply_is_told_with_what_the_server_says(tmp_path):
    with judge_server(share_error=1.0) as server:
        results, use = jury(tmp_path, endpoint(server, max_retries=0)).judge(questions(3), quiet)
    assert use.failures == {"InternalServerError": 3}
    assert use.messages == {"InternalServerError": "the provider is busy"}
    assert {(result.reason, result.is_final) for result in results} == {("InternalServerError", False)}


def test_a_killed_actor_is_started_again_and_asks_again(tmp_path):
    with judge_server(latency_ms=300) as server:

        def kill_one(done, killed=[]):  # noqa: B006
            if done > 10 and not killed:
                killed.append(actors()[0])
                os.kill(killed[0], signal.SIGKILL)

        results, _ = jury(tmp_path, endpoint(server, concurrency=40)).judge(questions(120), kill_one)
    assert [result.value for result in results] == expected(120)


def actors():
    found = [
        p.pid for p in psutil.process_iter(["cmdline"]) if "ray::_EndpointActor" in " ".join(p.info["cmdline"] or [])
    ]
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    return [pid for pid in found if pid in mine]


def test_a_server_that_dies_leaves_the_rest_open_and_is_not_asked_for_ever(tmp_path):
    settings = {"max_retries": 0, "concurrency": 4}
    with judge_server(die_after=30) as server:
        results, use = jury(tmp_path, endpoint(server, **settings)).judge(questions(200), quiet)
        values = [result.value for result in results]
        assert values.count("") == 170
        assert all(value in ("", right) for value, right in zip(values, expected(200), strict=True))
        assert not any(result.is_final for result in results if not result.value)
        # The judge gives up after 20 failures in a row. Eight questions are under way at any time, and an answer that
        # failures have overtaken starts the count again, so the exact number of requests depends on who is faster.
        requests = server.counts()["requests"]
        assert requests < 100, "after twenty failures in a row nobody is asked"
        assert use.failures["not_asked_after_failures"] == 200 - requests
    with judge_server() as server:
        results, use = jury(tmp_path, endpoint(server)).judge(questions(200), quiet)
    assert [result.value for result in results] == expected(200)
    assert (use.asked, use.remembered) == (170, 30), "what was said is not asked again"


def test_explanations_are_rated_by_a_rubric_and_remembered_apart(tmp_path):
    with judge_server() as server, jury(tmp_path, endpoint(server), rubric="explanation") as asked:
        results, _ = asked.judge(questions(6), quiet)
        ratings, use = asked.rate(questions(6), quiet)
    assert [result.value for result in results] == expected(6)
    assert [rating.value for rating in ratings] == ["4"] * 6
    assert use.asked == 6, "another template is another question"


def test_a_budget_leaves_the_rest_unjudged_and_a_rate_is_kept(tmp_path):
    with judge_server() as server:
        limited = endpoint(server, requests_per_minute=1200)
        limited_jury = jury(tmp_path, limited, most_questions=20)
        results, use = limited_jury.judge(questions(30), quiet)
        assert [result.reason for result in results].count("budget_spent") == 10
        assert (use.asked, server.counts()["requests"]) == (20, 20)
        results, use = limited_jury.judge(questions(30), quiet)
        assert (use.asked, use.remembered) == (10, 20), "another evaluation has a budget of its own"


def test_no_server_or_one_that_is_no_judge_is_named(tmp_path):
    with judge_server() as server:
        url = server.url
        with pytest.raises(ConfigError, match="check the model 'judge' and the key"):
            jury(tmp_path, endpoint(server, url=url.replace("/v1", "/elsewhere"))).judge(questions(3), quiet)
    with pytest.raises(ConfigError, match="no server answers"):
        jury(tmp_path, EndpointConfig(url=url, model="judge", max_retries=0)).judge(questions(3), quiet)


def test_a_local_model_judges_and_what_it_says_is_read_strictly(tmp_path, tiny_model):
    """A model that was trained on nothing says nothing that is a verdict; it is asked all the same, and once."""
    local = LocalJudgeConfig(path=str(tiny_model), max_tokens=4, batch_size=3)
    with judge_server() as server:
        results, use = jury(tmp_path, local, endpoint(server), endpoint(server, model="other")).judge(
            questions(4), quiet
        )
    assert [result.value for result in results] == expected(4), "two of three agree"
    assert use.failures == {"cut_off_at_max_tokens": 4}
    assert {len(result.votes) for result in results} == {3}


def test_a_local_model_that_chooses_among_replies_always_has_a_verdict(tmp_path, tiny_model):
    written = LocalJudgeConfig(path=str(tiny_model), max_tokens=4)
    assert jury(tmp_path, written).judge(questions(4), quiet)[1].failures
    chosen = LocalJudgeConfig(path=str(tiny_model), reply="chosen")
    results, use = jury(tmp_path, chosen).judge(questions(4), quiet)
    assert {result.value for result in results} <= {"correct", "incorrect"}
    assert (use.asked, use.remembered, not use.failures) == (4, 0, True), "it is another judge than the one that writes"
    ratings, _ = jury(tmp_path, chosen, rubric="explanation").rate(questions(2), quiet)
    assert all(1 <= int(rating.value) <= 5 for rating in ratings)


def test_an_evaluation_with_a_judge_is_incomplete_until_all_is_judged_and_takes_labels(sftkey, tiny_config, tmp_path):
    """The whole command line: a model that a server writes for, judges that die, and a person's labels."""
    run = tmp_path / "runs" / "tiny"
    first_letter = "evaluation.answer_check={regex: '^(.)'}"  # takes `review` for `reject`, and the judge does not

    def ran():
        served = f"{{url: {server.url}, model: 'trained/{{strategy}}'}}"
        judge = f"{{url: {server.url}, model: judge, max_retries: 0, concurrency: 1}}"
        settings = [
            "tracking.enabled=false",
            "cluster.num_workers=1",
            "evaluation.backend=endpoint",
            f"evaluation.endpoint={served}",
            f"evaluation.judge.judges=[{judge}]",
        ]
        return sftkey("run", tiny_config, "strategies=[sft-tag]", first_letter, *settings)

    def compared():
        (row,) = json.loads((run / "comparison.json").read_text())["rows"]
        return row

    port = free_port()
    with judge_server(die_after=3, port=port) as server:
        done = ran()
        assert done.returncode == 1, done.stderr
        assert "incomplete: sft-tag: 5 answers are not judged yet (InternalServerError: 5)" in done.stderr
        assert "accuracy lies between" in done.stdout
        assert (compared()["unjudged"], compared()["is_complete"]) == (5, False)
    with judge_server(port=port) as server:
        done = ran()
        assert done.returncode == 0, done.stderr
        counts = server.counts()
        assert (counts["requests"], counts["written"]) == (5, 0), "nothing is asked, and nothing written, twice"
        row = compared()
        assert (row["unjudged"], row["is_complete"], row["format"]) == (0, True, 1.0)
        assert row["agreement"]["judge_and_check"]["share"] < 1

        (review,) = run.glob("evaluation/*/review.jsonl")
        lines = [json.loads(line) for line in review.read_text().splitlines()]
        records = [json.loads(line) for line in review.with_name("records.jsonl").read_text().splitlines()]
        assert len(lines) == sum(r["checks"]["answer"]["verdict"] != r["verdict"] for r in records) > 0
        review.write_text("".join(json.dumps(line | {"label": "correct"}) + "\n" for line in lines))
        assert ran().returncode == 0
        assert server.counts()["requests"] == 5, "labels cost no question"
    assert compared()["accuracy"] == pytest.approx(row["accuracy"] + len(lines) / 8)
    assert compared()["to_review"] == 0

    diagnosis = sftkey("diagnose", run)
    assert diagnosis.returncode == 0, diagnosis.stderr
    assert "right but" in diagnosis.stdout
    (findings,) = json.loads((run / "diagnosis.json").read_text()).values()
    assert findings[0]["kind"] == "right_structure_wrong_answer"
