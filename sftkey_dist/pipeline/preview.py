"""What a run's steps will look like on any number of ranks, before one is rented."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.config.run import RunConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.shape import decoder_cost, read_shape
from sftkey_dist.pipeline.prepare import Preparation
from sftkey_dist.pipeline.stages import PlannedStage, planner_of, stages_to_train
from sftkey_dist.report.plots import plot_balance
from sftkey_dist.sampler import CostModel
from sftkey_dist.sampler.preview import BalancePreview, preview
from sftkey_dist.strategy import Strategy

_FEW_EXAMPLES_PER_RANK = 8


@dataclass(frozen=True)
class StagePreview:
    """A stage, and how level its steps will lie."""

    name: str
    num_steps: int
    rows: tuple[BalancePreview, ...]

    def warnings(self) -> list[str]:
        """What a person should look at before training."""
        few = sorted({row.data_ranks for row in self.rows if row.examples_per_rank < _FEW_EXAMPLES_PER_RANK})
        if not few:
            return []
        return [
            f"{self.name}: fewer than {_FEW_EXAMPLES_PER_RANK} examples a rank on {', '.join(map(str, few))} ranks "
            f"cannot be laid level; raise optimization.global_batch_size, or use fewer ranks"
        ]


def plan(
    config: RunConfig,
    preparation: Preparation,
    data_ranks: Sequence[int],
    most_steps: int,
    progress: Callable[[int], Callable[[int], None]],
) -> tuple[list[StagePreview], list[Path]]:
    """Preview every stage that has to be trained; returns the previews and the files written.

    Raises:
        ConfigError: a number of ranks is below 1.
    """
    if not data_ranks or min(data_ranks) < 1:
        raise ConfigError(f"ranks must be numbers from 1 up, got {list(data_ranks)}")
    stages = stages_to_train(config, preparation)
    cost = decoder_cost(read_shape(preparation.model_dir, config.model.trust_remote_code))
    told, done = progress(len(stages) * len(data_ranks)), 0
    previews = []
    for strategy, planned in stages:
        rows: list[BalancePreview] = []
        for ranks in data_ranks:
            rows += _preview(config, preparation, strategy, planned, ranks, cost, most_steps)
            done += 1
            told(done)
        name = f"{strategy.name} {planned.stage.name}"
        previews.append(StagePreview(name, planned.num_steps, tuple(rows)))
    return previews, _write(preparation, previews)


def _preview(
    config: RunConfig,
    preparation: Preparation,
    strategy: Strategy,
    planned: PlannedStage,
    data_ranks: int,
    cost: CostModel,
    most_steps: int,
) -> list[BalancePreview]:
    budget = config.training.micro_batch_tokens
    planner = planner_of(config, preparation, strategy.form, planned.stage, cost, data_ranks, budget)
    return preview(planner, most_steps)


def _write(preparation: Preparation, previews: Sequence[StagePreview]) -> list[Path]:
    file = preparation.run.plan
    content: list[dict[str, Any]] = [asdict(stage) for stage in previews]
    write_json_atomically(file, {"stages": content})
    picture = plot_balance({stage.name: stage.rows for stage in previews}, file.with_suffix(".svg"))
    return [file, picture]
