"""A whole run: prepare the data, train the stages that the strategies need, evaluate, compare.

Stages meet on disk. A stage is named by the digest of all it depends on, the digest of the stage before it
included; a stage that is finished under its digest is not run again, in this run or a later one. That is how
sft-tag's training doubles as the first stage of sftkey-tag, and how an interrupted run goes on.
"""

from contextlib import nullcontext
from pathlib import Path

from sftkey_dist.cluster import connected
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.evaluate import evaluate, evaluation_is_finished
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.train import train, training_is_finished
from sftkey_dist.report.comparison import ComparisonRow

__all__ = ["compare", "evaluate", "prepare", "run", "train"]


def run(config: RunConfig) -> tuple[list[ComparisonRow], list[Path]]:
    """The whole thing; returns the comparison's rows and files. What an earlier run finished is not repeated."""
    preparation = prepare(config)
    finished = training_is_finished(config, preparation) and evaluation_is_finished(config, preparation)
    with nullcontext() if finished else connected(config.cluster):
        train(config, preparation)
        evaluate(config, preparation)
    return compare([config.run_dir])
