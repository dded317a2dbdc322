"""SFTKey-Tag on Ray and DeepSpeed: whole tagged response first, key answer tokens second.

The names below are the public interface. They are loaded when they are first used, so that importing the package loads
no library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftkey_dist.config import RunConfig, load_config
    from sftkey_dist.errors import UserError
    from sftkey_dist.evaluation.reward import Reward
    from sftkey_dist.pipeline.run import RunResult, run
    from sftkey_dist.release import version
    from sftkey_dist.report.comparison import Comparison
    from sftkey_dist.report.finished_runs import read_comparison
    from sftkey_dist.sampler import CostModel, RankBatchSampler, StepPlanner

__all__ = [
    "Comparison",
    "CostModel",
    "RankBatchSampler",
    "Reward",
    "RunConfig",
    "RunResult",
    "StepPlanner",
    "UserError",
    "load_config",
    "read_comparison",
    "run",
    "version",
]

_MODULES = {
    "Comparison": "report.comparison",
    "CostModel": "sampler",
    "RankBatchSampler": "sampler",
    "Reward": "evaluation.reward",
    "RunConfig": "config",
    "RunResult": "pipeline.run",
    "StepPlanner": "sampler",
    "UserError": "errors",
    "load_config": "config",
    "read_comparison": "report.finished_runs",
    "run": "pipeline.run",
    "version": "release",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
