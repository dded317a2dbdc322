"""Previews the balance of a run's steps for any number of ranks, without any accelerators."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.shape import decoder_cost, read_shape
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.report.plots import plot_balance
from sftkey_dist.sampler import BalanceStats
from sftkey_dist.sampler.preview import OURS, BalancePreview, preview

_FEW_EXAMPLES_PER_RANK = 8
_UNEVEN = 0.05
"""Share of a step that ranks wait, or by which the loss weight of one exceeds the mean, from which it matters."""


@dataclass(frozen=True)
class StagePreview:
    """A stage and the balance of its steps."""

    name: str
    num_steps: int
    rows: tuple[BalancePreview, ...]

    @property
    def too_many_ranks(self) -> tuple[int, ...]:
        """Numbers of ranks that have too few examples each, so that the plan is uneven."""
        ours = [row for row in self.rows if row.side == OURS and row.examples_per_rank < _FEW_EXAMPLES_PER_RANK]
        return tuple(sorted({row.data_ranks for row in ours if _is_uneven(row.balance)}))


def _is_uneven(balance: BalanceStats) -> bool:
    return max(balance.straggler_loss, balance.loss_weight - 1) > _UNEVEN


def warnings_about(stages: Sequence[StagePreview]) -> list[str]:
    """Warnings to consider before training, each with all stages that it is about."""
    found: dict[tuple[int, ...], list[str]] = {}
    for stage in stages:
        found.setdefault(stage.too_many_ranks, []).append(stage.name)
    return [
        f"{', '.join(names)}: fewer than {_FEW_EXAMPLES_PER_RANK} examples per rank on {', '.join(map(str, ranks))} "
        f"ranks cannot be balanced well; raise optimization.global_batch_size, or use fewer ranks"
        for ranks, names in found.items()
        if ranks
    ]


def preview_run(
    plan: RunPlan,
    data_ranks: Sequence[int],
    most_steps: int,
    progress: Callable[[int], Callable[[int], None]],
) -> tuple[list[StagePreview], list[Path]]:
    """Preview every stage to be trained, and return the previews and the files written.

    Raises:
        ConfigError: a number of ranks is below 1.
    """
    if not data_ranks or min(data_ranks) < 1:
        raise ConfigError(f"--ranks: numbers of ranks must be at least 1, got {list(data_ranks)}")
    config, stages = plan.config, plan.stages
    cost = decoder_cost(read_shape(plan.preparation.model_dir, config.model.trust_remote_code))
    told, done = progress(len(stages) * len(data_ranks)), 0
    previews = []
    for planned in stages:
        rows: list[BalancePreview] = []
        for ranks in data_ranks:
            rows += preview(planned.planner(cost, ranks, config.training.micro_batch_tokens), most_steps)
            done += 1
            told(done)
        previews.append(StagePreview(planned.name, planned.num_steps, tuple(rows)))
    return previews, _write(plan.run.plan, previews)


def _write(file: Path, previews: Sequence[StagePreview]) -> list[Path]:
    content: list[dict[str, object]] = [asdict(stage) for stage in previews]
    write_json_atomically(file, {"stages": content})
    picture = plot_balance({stage.name: stage.rows for stage in previews}, file.with_suffix(".svg"))
    return [file, picture]
