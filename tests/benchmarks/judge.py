"""Judgements a second against a local server, without and with faults, and an evaluation that is repeated.

``python -m tests.benchmarks.judge``
"""

import os
import tempfile
import time
from pathlib import Path

from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import JudgeConfig
from sftkey_dist.evaluation.judge.jury import Jury, make_jury
from sftkey_dist.evaluation.judge.template import Question
from tests.benchmarks.figures import Figure, arguments, median_of, publish
from tests.judge_server import RunningJudge, judge_server

LATENCY_MS, CONCURRENCY = 200, 64
FAULTS = {"share_429": 0.1, "share_500": 0.05, "share_hang": 0.02, "share_garbage": 0.02}
CLUSTER = ClusterConfig(num_workers=2)


def main() -> None:
    options = arguments(__doc__ or "")
    number, rounds = (400, 1) if options.quick else (2000, 5)
    os.environ.pop("RAY_ADDRESS", None)
    with connected(CLUSTER, 2):
        figures = steady(number, rounds) | with_faults(number)
    publish("Judging", figures, options.json)


def steady(number: int, rounds: int) -> dict[str, Figure]:
    """Wall time over the least that the latency allows, actors running; and what a repeat takes."""
    ideal = number / CONCURRENCY * LATENCY_MS / 1000
    ratios, repeats = [], []
    with judge_server(latency_ms=LATENCY_MS) as server, fresh_jury(server) as jury:
        started = time.perf_counter()
        judged(jury, number, "first")
        first = time.perf_counter() - started
        for round_number in range(rounds):
            cold = timed(jury, number, f"round {round_number}")
            ratios.append(cold / ideal)
            repeats.append(timed(jury, number, f"round {round_number}") / cold)
    return {
        "judging: wall time / ideal": median_of(ratios, "", "<= 1.10", f"{number} judgements, 64 at a time, 200 ms"),
        "judging: the same with the start of the actors": Figure(first / ideal, ""),
        "judging again, all remembered / first": median_of(repeats, "", "<= 0.05"),
    }


def with_faults(number: int) -> dict[str, Figure]:
    """Verdicts that are lost or wrong when the server fails in every way."""
    with judge_server(latency_ms=LATENCY_MS, **FAULTS) as server, fresh_jury(server) as jury:
        started = time.perf_counter()
        wrong = judged(jury, number, "faults")
        seconds = time.perf_counter() - started
        counts = server.counts()
    met = ", ".join(f"{name} {counts[name]}" for name in ("429", "500", "hang", "garbage"))
    return {
        "judging with faults: verdicts lost or wrong": Figure(wrong, "", "<= 0", against=met),
        "judging with faults: time": Figure(seconds, "s"),
    }


def fresh_jury(server: RunningJudge) -> Jury:
    judge = EndpointConfig(url=server.url, model="judge", concurrency=CONCURRENCY, timeout_seconds=2.0, max_retries=8)
    return make_jury(JudgeConfig(judges=(judge,)), Path(tempfile.mkdtemp()), CLUSTER, 1)


def timed(jury: Jury, number: int, name: str) -> float:
    started = time.perf_counter()
    if judged(jury, number, name):
        raise SystemExit("a verdict was lost or wrong without a fault")
    return time.perf_counter() - started


def judged(jury: Jury, number: int, name: str) -> int:
    """Judge; returns how many verdicts are not what they must be."""
    questions = [Question(f"{name} {i}", f"answer {i}", f"answer {i if i % 2 else -i - 1}") for i in range(number)]
    results, _ = jury.judge(questions, lambda done: None)
    return sum(result.value != ("correct" if i % 2 else "incorrect") for i, result in enumerate(results))


if __name__ == "__main__":
    main()
