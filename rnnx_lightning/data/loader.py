"""Loaders that hand out the batches of a plan; each rank gets its part.

They are not torch's DataLoader, because there is nothing to fetch or collate: pixels are gathered on the device.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rnnx_lightning.data.batches import PlannedBatch
from rnnx_lightning.data.majority import Plan


class EpochSampler:
    """The sequences of each epoch, and their order.

    Args:
        plan_of_epoch: the plan of an epoch, counted from 0; its indices point into the data set.
    """

    def __init__(self, plan_of_epoch: Callable[[int], Plan]) -> None:
        self._plan_of_epoch = plan_of_epoch
        self._epoch = 0
        self._drawn: tuple[int, Plan] | None = None  # the last plan, and its epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. Lightning calls this at the start of each epoch, as for a DistributedSampler."""
        self._epoch = epoch

    @property
    def plan(self) -> Plan:
        """The plan of the chosen epoch."""
        if self._drawn is None or self._drawn[0] != self._epoch:
            self._drawn = (self._epoch, self._plan_of_epoch(self._epoch))
        return self._drawn[1]


class TrainingLoader:
    """A new plan in each epoch, in batches of equal size.

    Rank r gets the r-th part of each global batch, because sequences that share images are next to each other. An
    incomplete last batch is dropped, so that all ranks make the same number of steps.

    Args:
        plan_of_epoch: see `EpochSampler`.
        batch_size: sequences per batch and rank.
        rank: this process.
        world_size: number of processes.
        shared: see `PlannedBatch.of`.
        batches_done: number of batches to skip, because they were done before a resume; called at each iteration's
            start.

    Attributes:
        sampler: Lightning calls its `set_epoch`.
    """

    def __init__(
        self,
        plan_of_epoch: Callable[[int], Plan],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        shared: bool = True,
        batches_done: Callable[["TrainingLoader"], int] = lambda loader: 0,
    ) -> None:
        self.sampler = EpochSampler(plan_of_epoch)
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._shared = shared
        self._batches_done = batches_done

    def __len__(self) -> int:
        return len(self.sampler.plan.label) // (self._batch_size * self._world_size)

    def __iter__(self) -> Iterator[PlannedBatch]:
        # A generator, so that this runs with the first batch: Lightning creates it before it chooses the epoch.
        plan = self.sampler.plan
        for number in range(self._batches_done(self), len(self)):
            start = (number * self._world_size + self._rank) * self._batch_size
            yield PlannedBatch.of(plan.rows(slice(start, start + self._batch_size)), self._shared)

    def state_dict(self) -> dict[str, Any]:
        """Empty: `batches_done` says where to resume. Without this method, Lightning warns about the loader."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, see `state_dict`."""


class EvaluationLoader:
    """One plan, the same in every epoch, to its last sequence.

    Rank r gets the sequences r, r + W, r + 2 W, ...: the first sequences of all ranks are the first of the plan.
    Every sequence is handed out exactly once, so ranks may differ by one batch.

    Args:
        plan: its indices point into the data set.
        batch_size: sequences per batch and rank; the last batch may be smaller.
        rank: this process.
        world_size: number of processes, W.
    """

    def __init__(self, plan: Plan, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._plan = plan.rows(slice(rank, None, world_size))
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._plan.label) // self._batch_size)

    def __iter__(self) -> Iterator[PlannedBatch]:
        for start in range(0, len(self._plan.label), self._batch_size):
            yield PlannedBatch.of(self._plan.rows(slice(start, start + self._batch_size)), shared=True)
