"""Records of a run's files with plain values, for tests that care for a few of them."""

from itertools import count
from typing import Any

from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord
from sftkey_dist.run_dir.artifacts.training import SegmentMetrics, StageSummary, StepMetrics, StepTiming
from sftkey_dist.sampler.stats import BalanceStats

_NUMBERS = count()


def output_record(verdict: str = "correct", *, keeps: bool = True, **changes: Any) -> EvaluationRecord:
    """A judged output; without an id each is of a question of its own."""
    plain: dict[str, Any] = {
        "id": f"record {next(_NUMBERS)}",
        "data_set": "",
        "sample": 0,
        "prompt": "",
        "output": "",
        "reference": {},
        "answer": {},
        "answer_source": {},
        "segments": {},
        "keeps_contract": keeps,
        "violation": None if keeps else "missing",
        "num_tokens": 1,
        "truncated": False,
        "verdict": Verdict(verdict),
    }
    return EvaluationRecord(**plain | changes)


def step_metrics(step: int = 0, **changes: Any) -> StepMetrics:
    """A step that is level."""
    plain: dict[str, Any] = {
        "step": step,
        "epoch": 0,
        "loss": 1.0,
        "learning_rate": 1e-5,
        "grad_norm": 1.0,
        "tokens": 9,
        "loss_tokens": 3,
        "balance": BalanceStats(1.0, 1.0, 1.0, 1.0, 0.01),
        "segments": {},
    }
    return StepMetrics(**plain | changes)


def step_timing(step: int = 0, **changes: Any) -> StepTiming:
    """A step of a second on two ranks."""
    plain: dict[str, Any] = {
        "step": step,
        "seconds": 1.0,
        "tokens_per_second": 9.0,
        "loss_tokens_per_second": 3.0,
        "model_tflops_per_second": 0.1,
        "phase_seconds": {"forward": 1.0},
        "world_size": 2,
        "peak_memory_gib": 0.5,
    }
    return StepTiming(**plain | changes)


def stage_summary(**changes: Any) -> StageSummary:
    """A stage of four steps on two ranks."""
    plain: dict[str, Any] = {
        "digest": "0123456789abcdef",
        "inputs": {"weights": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]},
        "steps": 4,
        "tokens": 100,
        "loss_tokens": 9,
        "train_seconds": 10.0,
        "world_size": 2,
    }
    return StageSummary(**plain | changes)


def nll(value: float, tokens: int = 3) -> SegmentMetrics:
    """A segment's metrics."""
    return SegmentMetrics(nll=value, token_accuracy=0.5, tokens=tokens)
