"""Measures held-out examples between steps, runs the guard, and writes the model that the stage ends in."""

from itertools import pairwise

from sftkey_dist.data.held_out import without_copies
from sftkey_dist.run_dir.artifacts.training import INTERPOLATIONS, OBSERVATIONS, Interpolation, Observation
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.training.checkpoint import CheckpointKeeper
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.export import export_model, note_hand_off
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.validation.held_out import HeldOutSet


class Observer:
    """Watches a stage; every method is called on all ranks together."""

    def __init__(self, stage: RunningStage, first_step: int, watch: Stopwatch, checkpoints: CheckpointKeeper) -> None:
        """Go on from what was observed up to ``first_step``.

        Args:
            stage: the stage.
            first_step: that is run next.
            watch: charges phases with their time.
            checkpoints: of the stage; they say which models the guard must keep.

        Raises:
            TrainingError: the guard's best model from before an interruption is gone.
        """
        self._job, self._engine, self._watch = stage.job, stage.engine, watch
        self._directory = stage.directory
        measured = without_copies(stage.held_out, stage.store.hashes)
        self._held_out = HeldOutSet(stage, measured) if len(measured) else None
        self._guard = None
        if stage.job.guard:
            # Its scoring loads scipy, which a stage without a guard does not need.
            from sftkey_dist.training.validation.guard import Guard

            self._guard = Guard(stage, checkpoints.candidates)
        self._observed_steps = self._recall(first_step)

    @property
    def wants_to_stop(self) -> bool:
        """Whether the guard ends the stage early."""
        return self._guard is not None and self._guard.wants_to_stop

    @property
    def candidate(self) -> int | None:
        """The guard's model that a stage resuming from here needs, by the steps done when it was taken, if any."""
        return self._guard.kept_step if self._guard is not None else None

    def observe(self, steps_done: int, *, is_last: bool) -> None:
        """Measure what is due after so many steps."""
        if steps_done in self._observed_steps:
            return
        validation = guard = None
        every = self._job.validation.every_steps
        if self._held_out is not None and (is_last or steps_done % every == 0):
            with self._watch.phase("validation"):
                validation = self._held_out.measure()
        if self._guard is not None and self._guard.is_due(steps_done, is_last=is_last):
            with self._watch.phase("guard"):
                guard = self._guard.evaluate(steps_done)
        if (validation or guard) and self._engine.rank == 0:
            OBSERVATIONS.append(self._directory.validation, [Observation(steps_done, validation, guard)])

    def interpolate(self, steps_done: int) -> None:
        """Have the guard score models between the start of the stage and now, which may become the stage's result.

        Nothing can be trained afterwards. It is done after the last checkpoint, so that an interruption repeats it.
        """
        parts = self._job.stage.interpolate
        if not parts:
            return
        if self._guard is None or self._held_out is None:
            raise AssertionError("interpolation needs a guard and held-out examples")
        if self._engine.rank == 0:
            self._directory.interpolations.unlink(missing_ok=True)  # of an end that was interrupted
            listed = ", ".join(f"{part:g}" for part in parts)
            message = f"scoring the models with {listed} of the stage's update"
            append_event(self._directory.events, "interpolating", message)
        for before, part in pairwise((1.0, *parts)):
            with self._watch.phase("guard"):
                self._engine.weights.scale_update(part / before)
                found = Interpolation(part, self._held_out.measure(), self._guard.evaluate(steps_done, part))
            if self._engine.rank == 0:
                INTERPOLATIONS.append(self._directory.interpolations, [found])

    def hand_on(self) -> None:
        """Write the stage's result: the guard's best model, or the last."""
        if self._guard is not None and self._guard.kept_step is not None:
            self._guard.hand_on()
            return
        export_model(self._engine, self._job, self._directory.model)
        note_hand_off(self._engine, self._job, self._directory)

    def _recall(self, first_step: int) -> set[int]:
        """Steps that were observed before; a stage that starts over ignores what an interrupted start left."""
        records: list[Observation] = []
        if self._engine.rank == 0:
            OBSERVATIONS.keep(self._directory.validation, lambda record: 0 < first_step >= record.step)
            records = OBSERVATIONS.read(self._directory.validation)
        # Rank 0's view counts: on shared storage another node may still see the file as it was.
        records = self._engine.gather_to_all(records)[0]
        if self._guard is not None:
            for record in records:
                if record.guard is not None:
                    self._guard.recall(record.step, record.guard.score)
            self._guard.check_candidate()
        return {record.step for record in records}
