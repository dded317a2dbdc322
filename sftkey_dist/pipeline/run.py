"""All parts in order."""

from contextlib import nullcontext
from pathlib import Path

from sftkey_dist.cluster import connected
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.evaluate import evaluate, evaluation_is_finished
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.train import train, training_is_finished
from sftkey_dist.report.comparison import Comparison


def run(config: RunConfig) -> tuple[Comparison, list[Path], list[str]]:
    """The whole thing. What an earlier run finished is not repeated.

    Returns:
        The comparison, its files, and what could not be judged yet.
    """
    preparation = prepare(config)
    finished = training_is_finished(config, preparation) and evaluation_is_finished(config, preparation)
    with nullcontext() if finished else connected(config.cluster, config.most_workers):
        train(config, preparation)
        still_open = evaluate(config, preparation)
    comparison, files = compare([config.run_dir])
    return comparison, files, still_open
