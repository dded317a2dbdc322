"""A stage while it trains: what the loop and everything beside it work on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkey_dist.data.store import EncodedStore
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler import StepPlanner
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.steps.start_predictions import Predictions, StartPredictions


@dataclass(frozen=True)
class RunningStage:
    """A stage whose data and model are loaded.

    Attributes:
        job: what the stage was told.
        store: its encoded examples.
        held_out: indices of the examples that are not trained on.
        engine: its model and optimizer.
        start: predictions of the model that an anchored stage starts from; None otherwise.
    """

    job: StageJob
    store: EncodedStore
    held_out: np.ndarray
    engine: Engine
    start: StartPredictions | None = None

    @property
    def directory(self) -> StageDir:
        """Where the stage writes."""
        return StageDir(self.job.stage_dir)

    def start_predictions(self, indices: Sequence[int]) -> list[Predictions]:
        """The predictions of the model that the stage starts from, for each of these examples."""
        if self.start is None:
            raise AssertionError("only an anchored stage has the predictions of its start")
        return [self.start.of(index) for index in indices]

    def close(self) -> None:
        """Free the model and close the files; the process group stays."""
        self.engine.close()
        if self.start is not None:
            self.start.close()

    def planner(self) -> StepPlanner:
        """The steps of the stage, as every rank plans them."""
        return self.job.stage.planner(
            self.store.segment_counts,
            seed=self.job.seed,
            micro_batch_tokens=self.job.training.micro_batch_tokens,
            data_ranks=self.engine.data_ranks,
            cost=self.engine.cost,
            held_out=self.held_out,
            example_weights=self.store.loss_weights,
        )
