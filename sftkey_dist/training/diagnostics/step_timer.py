"""Measures how long each step took, by phase, and at what rate the ranks computed."""

import numpy as np

from sftkey_dist.run_dir.artifacts.training import CollectiveTimes, StepMetrics, StepTiming
from sftkey_dist.sampler import StepPlan
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.forward.flops import peak_flops_per_second, prefix_tokens
from sftkey_dist.training.steps.running import RunningStage


class StepTimer:
    """Wall-clock figures of rank 0, step by step."""

    def __init__(self, stage: RunningStage, lengths: np.ndarray) -> None:
        """
        Args:
            stage: the stage.
            lengths: tokens of each example, [N].
        """
        trained, counts = stage.job.stage, stage.store.segment_counts
        self._stage = trained
        self._engine, self._lengths = stage.engine, lengths
        self._flops = stage.engine.flops
        self._prefixes = prefix_tokens(counts, trained.weights) if trained.stop_gradient_prefix else None
        peak = peak_flops_per_second(stage.engine.device, stage.job.precision)
        self._peak_of_all = peak * stage.engine.world_size if peak else None

    def timing(
        self,
        plan: StepPlan,
        record: StepMetrics,
        seconds: float,
        watch: Stopwatch,
        collectives: CollectiveTimes | None,
    ) -> StepTiming:
        """The record of a step in ``timings.jsonl``.

        Args:
            plan: of the step.
            record: its metrics.
            seconds: that the step took, without what followed it.
            watch: phases of the step and of what followed it.
            collectives: what `CollectiveWatch.take` returned.
        """
        members = plan.example_indices
        prefixes = None if self._prefixes is None else self._prefixes[members]
        has_logits = self._stage.acting(plan.step, plan.weighted_targets).has_logits
        flops = self._flops.of_step(self._lengths[members], int(np.dot(plan.target_counts, has_logits)), prefixes)
        return StepTiming(
            step=record.step,
            seconds=seconds,
            tokens_per_second=record.tokens / seconds,
            loss_tokens_per_second=record.loss_tokens / seconds,
            model_tflops_per_second=flops / seconds / 1e12,
            mfu=flops / seconds / self._peak_of_all if self._peak_of_all else None,
            collective_seconds=collectives.collective_seconds if collectives else None,
            watched_seconds=collectives.watched_seconds if collectives else None,
            watch_cost_seconds=collectives.watch_cost_seconds if collectives else None,
            phase_seconds=watch.take(),
            world_size=self._engine.world_size,
            peak_memory_gib=self._engine.peak_memory_bytes / 2**30,
        )
