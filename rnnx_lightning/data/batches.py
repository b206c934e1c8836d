"""Batches of sequences: as planned (positions of images), and as networks read them (pixels)."""

from typing import NamedTuple

import torch
from torch import Tensor

from rnnx_lightning.data.majority import Plan


class PlannedBatch(NamedTuple):
    """B sequences of S images, each image named by its position in the data set.

    Loaders hand them out; `MajoritySequences.gather` turns them into a `SequenceBatch`.

    Attributes:
        positions: (U,) int64, positions of the images that are shown.
        order: (B, S) int64, which of these U images each sequence shows, from left to right.
        label: (B,) int64, the majority class.
        majority: (B, S) bool, true where the image is of the majority class.
    """

    positions: Tensor
    order: Tensor
    label: Tensor
    majority: Tensor

    @classmethod
    def of(cls, plan: Plan, shared: bool) -> "PlannedBatch":
        """The sequences of a plan.

        Args:
            plan: B sequences; its indices point into the data set.
            shared: list an image once, however many sequences show it. It is then encoded once, and they share
                the dropout mask of its features. False: list it once for each sequence, so that U is B * S.
        """
        if shared:
            positions, order = torch.unique(plan.index, return_inverse=True)
        else:
            positions, order = plan.index.flatten(), torch.arange(plan.index.numel()).view_as(plan.index)
        return cls(positions, order, plan.label, plan.majority)

    def with_pixels(self, distinct: Tensor) -> "SequenceBatch":
        """The same sequences, with the pixels of the U images."""
        return SequenceBatch(distinct, self.order, self.label, self.majority)


class SequenceBatch(NamedTuple):
    """B sequences of S images, as networks read them.

    Attributes:
        distinct: (U, 1, 28, 28 + margin) in [-1, 1], the images that are shown.
        order: (B, S) int64, which of these U images each sequence shows, from left to right.
        label: (B,) int64, the majority class.
        majority: (B, S) bool, true where the image is of the majority class.
    """

    distinct: Tensor
    order: Tensor
    label: Tensor
    majority: Tensor

    @property
    def image(self) -> Tensor:
        """(B, 1, 28, W): the sequences as pictures, samples side by side, in [-1, 1]."""
        images = self.distinct[self.order]  # (B, S, 1, 28, W / S)
        return images.permute(0, 2, 3, 1, 4).flatten(3)

    def first(self, count: int) -> "SequenceBatch":
        """The first `count` sequences of the batch."""
        return self._replace(order=self.order[:count], label=self.label[:count], majority=self.majority[:count])
