"""All parts in order."""

from contextlib import nullcontext
from pathlib import Path

from sftkey_dist.cluster import connected
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.evaluate import evaluate, evaluation_is_finished
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.train import train, training_is_finished
from sftkey_dist.report.comparison import ComparisonRow


def run(config: RunConfig) -> tuple[list[ComparisonRow], list[Path]]:
    """The whole thing; returns the comparison's rows and files. What an earlier run finished is not repeated."""
    preparation = prepare(config)
    finished = training_is_finished(config, preparation) and evaluation_is_finished(config, preparation)
    with nullcontext() if finished else connected(config.cluster, config.most_workers):
        train(config, preparation)
        evaluate(config, preparation)
    return compare([config.run_dir])
