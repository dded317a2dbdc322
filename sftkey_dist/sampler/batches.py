"""One rank's share of the plan, for any trainer: a batch sampler that only needs the token counts of the examples."""

from collections.abc import Iterator

from sftkey_dist.sampler.plan import StepPlan, StepPlanner


class RankBatchSampler:
    """The micro-batches of one rank, for ``torch.utils.data.DataLoader(batch_sampler=…)``.

    The loader and the training loop iterate over the same plan. The global loss weight of a step is known before its
    first forward pass, so the gradients below, summed over ranks, are those of the whole step. The loss weight itself
    needs no collective::

        planner = StepPlanner(counts, (0.0, 1.0), seed=0, global_batch_size=64, num_epochs=3, max_steps=None,
                              look_ahead_steps=4, data_ranks=world, micro_batch_tokens=4096, cost=CostModel(768, 1))
        sampler = RankBatchSampler(planner, rank, first_step=resumed_at)
        batches = iter(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate))
        for plan in sampler.plans():
            for _ in plan.micro_batches(rank):
                (weighted_nll_sum(model, next(batches)) / plan.loss_weight).backward()
            all_reduce_sum(gradients)
            optimizer.step()

    ``collate_fn`` is given an empty list if a rank has no examples in a micro-batch in which other ranks have some. It
    must then return a batch without loss, so that this rank still takes part in the collectives inside the model.
    """

    def __init__(self, planner: StepPlanner, rank: int, first_step: int = 0) -> None:
        """
        Args:
            planner: the plan, the same on all ranks.
            rank: the rank whose share it yields, 0 <= rank < data_ranks.
            first_step: step to continue with; this number is all the state that resuming needs.

        Raises:
            ValueError: The rank is out of range.
        """
        if not 0 <= rank < planner.data_ranks:
            raise ValueError(f"rank {rank} is outside 0..{planner.data_ranks - 1}")
        self._planner = planner
        self._rank = rank
        self._first_step = first_step

    def plans(self) -> Iterator[StepPlan]:
        """The steps that the batches belong to."""
        return self._planner.plans(self._first_step)

    def __len__(self) -> int:
        """Number of micro-batches of all steps. It plans every step, which takes seconds for a million examples."""
        return sum(plan.layout.shape[1] for plan in self.plans())

    def __iter__(self) -> Iterator[list[int]]:
        for plan in self.plans():
            yield from plan.micro_batches(self._rank)
