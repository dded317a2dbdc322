"""One strategy in a comparison."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.swapped.summary import SwapShares
from sftkey_dist.report.forgetting import Forgetting
from sftkey_dist.report.stage_cost import StageCost
from sftkey_dist.run_dir import EvaluationDir, StageDir
from sftkey_dist.run_dir.artifacts.evaluation import (
    RECORDS,
    Agreement,
    EvaluationRecord,
    MacroAverage,
    Scores,
)
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.run import SetReport
from sftkey_dist.run_dir.artifacts.swapped import SwappedReasoning


@dataclass(frozen=True)
class ComparisonRow:
    """One strategy of one run.

    Attributes:
        run_dir: the run directory, relative to the working directory.
        strategy: name of the strategy.
        dataset: names of the test sets.
        scores: scores over all test sets.
        by_data_set: scores of each test set.
        macro_average: mean over the test sets.
        agreement: agreement between judges, checks and human labels, as far as there are two of them.
        to_review: number of answers that need a human label.
        is_complete: whether no verdict is missing for a transient reason.
        evaluation: folder of the records, relative to the run directory.
        key_segments: names of the key segments.
        stages: cost of its stages, in order.
        mlflow_run_id: MLflow run of the strategy.
        forgetting: what its model can do beside the base model.
        guided: whether decoding was guided.
        swapped: answers after swapped reasoning; None if the run has not measured them.
        train_set: the rows that it was trained on; None if the run does not report them.
    """

    run_dir: str
    strategy: str
    dataset: str
    scores: Scores
    by_data_set: dict[str, Scores]
    macro_average: MacroAverage
    agreement: dict[str, Agreement]
    to_review: int
    is_complete: bool
    evaluation: str
    key_segments: tuple[str, ...]
    stages: tuple[StageCost, ...]
    mlflow_run_id: str | None
    forgetting: Forgetting
    guided: bool = False
    swapped: SwappedReasoning | None = None
    train_set: SetReport | None = None

    @property
    def train_seconds(self) -> float:
        """Seconds of training behind this strategy's model, shared stages included."""
        return sum(stage.train_seconds for stage in self.stages)

    @property
    def loss_tokens(self) -> int:
        """Tokens with a loss behind this strategy's model, shared stages included."""
        return sum(stage.loss_tokens for stage in self.stages)

    def stage_dirs(self) -> list[StageDir]:
        """The folders of its stages."""
        return [StageDir(Path(self.run_dir) / stage.path) for stage in self.stages]

    def records(self) -> list[EvaluationRecord]:
        """The records of all outputs.

        Raises:
            DataError: there are none.
        """
        file = EvaluationDir(Path(self.run_dir) / self.evaluation).records
        records = RECORDS.read(file) if file.is_file() else []
        if not records:
            raise DataError(f"{file}: there are no records of outputs; run `sftkey evaluate` with the run's config")
        return records

    def to_json(self, folder: Path) -> dict[str, object]:
        """Flat values, as in `comparison.json` in a folder, to which its run directory is relative.

        A comparison in the folder of its only run is therefore the same, wherever it is made and the run is moved.
        """
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NESTED}
        own["run_dir"] = os.path.relpath(self.run_dir, folder)
        nested = {"data_sets": self.by_data_set, **self.forgetting.by_key()} | ({"guided": True} if self.guided else {})
        nested |= {} if self.swapped is None else {"swapped_reasoning": SwapShares.of(self.swapped)}
        nested |= {} if self.train_set is None else {"training_rows": self.train_set.kept}
        flat: dict[str, object] = to_plain(own | {"stages": self.stages} | vars(self.scores) | nested)
        return flat


_NESTED = frozenset({"scores", "by_data_set", "stages", "forgetting", "guided", "swapped", "train_set"})
