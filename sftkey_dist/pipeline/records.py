"""`strategies.json`: which stages and which evaluation each strategy of a run has. The report reads it."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.files import write_json_atomically
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts import StrategyEntry, read_strategies
from sftkey_dist.strategy import Strategy


def record_training(
    run: RunDir, strategy: Strategy, config: RunConfig, stages: list[PlannedStage], mlflow_run_id: str | None
) -> None:
    """Set what a strategy was trained by; an evaluation of other stages is forgotten."""
    entry: StrategyEntry = {
        "form": strategy.form.value,
        "dataset": " + ".join(source.data_set for source in config.data.test),
        "key_segments": [segment.name for segment in config.contract.key_segments],
        "mlflow_run_id": mlflow_run_id,
        "stages": [
            {
                "name": planned.stage.name,
                "path": str(planned.directory.path.relative_to(run.path)),
                "shared_with": planned.shared_with,
            }
            for planned in stages
        ],
        "evaluation": None,
    }
    entries = _read_entries(run)
    known = entries.get(strategy.name)
    if known is not None and known["stages"] == entry["stages"]:
        entry["evaluation"] = known["evaluation"]
    write_json_atomically(run.strategies, entries | {strategy.name: entry})


def record_evaluation(run: RunDir, strategy: str, folder: Path) -> None:
    """Set where a strategy's evaluation lies."""
    entries = _read_entries(run)
    entries[strategy]["evaluation"] = str(folder.relative_to(run.path))
    write_json_atomically(run.strategies, entries)


def forget_all_but(run: RunDir, strategies: Sequence[str]) -> None:
    """Keep the entries of these strategies, in this order: a comparison shows one configuration, not its history."""
    entries = _read_entries(run)
    write_json_atomically(run.strategies, {name: entries[name] for name in strategies if name in entries})


def _read_entries(run: RunDir) -> dict[str, StrategyEntry]:
    """All entries; none before the first strategy is trained."""
    return read_strategies(run) if run.strategies.exists() else {}
