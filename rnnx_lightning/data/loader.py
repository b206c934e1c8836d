"""Batches of plan rows, sharded over ranks; randomness depends on (seed, epoch) alone."""

from collections.abc import Callable, Iterator
from typing import Any

from rnnx_lightning.data.batches import PlannedBatch
from rnnx_lightning.data.majority import Plan


class SequenceLoader:
    """Hands out a plan in whole batches.

    W ranks together see just the rows that one rank with W times the batch would, global batch by global batch.
    Where `even` is set, as for training, rank r takes the r-th part of each global batch, as sequences that
    show the same images stand beside each other; an incomplete last one is dropped, so that all ranks make the
    same number of steps. Else rank r takes every W-th row from r on: the first rows of all ranks are the first
    rows of the plan, every row is handed out once, and ranks may differ by a batch.

    Args:
        plan_of_epoch: the plan of an epoch, in the order in which it is to be seen; indices into the data set.
        batch_size: sequences a batch and rank.
        rank: this process.
        world_size: number of processes.
        even: see above.
        share: see `PlannedBatch.of`.
    """

    def __init__(
        self,
        plan_of_epoch: Callable[[int], Plan],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        even: bool = False,
        share: bool = True,
    ) -> None:
        self._plan_of_epoch = plan_of_epoch
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._even = even
        self._share = share
        self._epoch = 0
        self._next_batch = 0  # how far the current iteration is
        self._first_batch = 0  # where the next iteration begins: not at 0 only after `load_state_dict`
        self._cached: tuple[int, Plan] | None = None

    batch_sampler = None  # Lightning looks for one beside `sampler`

    @property
    def sampler(self) -> "SequenceLoader":
        """Lightning tells `loader.sampler` which epoch begins."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose plan the next iteration hands out."""
        if epoch != self._epoch:
            self._epoch, self._first_batch, self._next_batch = epoch, 0, 0

    @property
    def _plan(self) -> Plan:
        if self._cached is None or self._cached[0] != self._epoch:
            self._cached = (self._epoch, self._plan_of_epoch(self._epoch))
        return self._cached[1]

    def __len__(self) -> int:
        rows = len(self._plan.label)
        if self._even:
            return rows // (self._batch_size * self._world_size)
        return -(-max(rows - self._rank, 0) // (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[PlannedBatch]:
        width = self._batch_size * self._world_size
        if self._even:
            mine = slice(self._rank * self._batch_size, (self._rank + 1) * self._batch_size)
        else:
            mine = slice(self._rank, None, self._world_size)
        plan = self._plan
        first, self._first_batch = self._first_batch, 0
        for number in range(first, len(self)):
            self._next_batch = number + 1
            rows = plan.rows(slice(number * width, (number + 1) * width)).rows(mine)
            yield PlannedBatch.of(rows, self._share)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, for an exact resume in the middle of an epoch."""
        return {"epoch": self._epoch, "next_batch": self._next_batch % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._epoch = state["epoch"]
        self._first_batch = self._next_batch = state["next_batch"]
