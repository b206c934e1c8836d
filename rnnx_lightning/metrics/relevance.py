"""The scores as torchmetrics: a sum and a count, exact over any number of batches and ranks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from rnnx_lightning.metrics import functional
from rnnx_lightning.metrics.deletion import deletion, patches


class SequenceMean(Metric):
    """The mean of one value a sequence.

    Attributes:
        values: (B,) those that were counted in last; they are not added up over ranks.
    """

    full_state_update = False
    total: Tensor
    count: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Count (B,) values in."""
        self.values = values
        self.total += values.sum(dtype=self.total.dtype)
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean so far; 0 before the first sequence."""
        return (self.total / self.count.clamp(min=1)).float()


class MajorityCosineSimilarity(SequenceMean):
    """Mean of `functional.majority_cosine_similarity`."""

    higher_is_better = True

    def update(self, relevance: Tensor, majority: Tensor) -> None:
        """Count in relevance (B, 1, H, S * W) with its majority masks (B, S)."""
        self.add(functional.majority_cosine_similarity(relevance, majority))


class RelevanceMassAccuracy(SequenceMean):
    """Mean of `functional.relevance_mass_accuracy`."""

    higher_is_better = True

    def update(self, relevance: Tensor, majority: Tensor) -> None:
        """Count in relevance (B, 1, H, S * W) with its majority masks (B, S)."""
        self.add(functional.relevance_mass_accuracy(relevance, majority))


class RelevanceRankAccuracy(SequenceMean):
    """Mean of `functional.relevance_rank_accuracy`."""

    higher_is_better = True

    def update(self, relevance: Tensor, majority: Tensor) -> None:
        """Count in relevance (B, 1, H, S * W) with its majority masks (B, S)."""
        self.add(functional.relevance_rank_accuracy(relevance, majority))


class ConservationError(SequenceMean):
    """Mean of `functional.conservation_error`."""

    higher_is_better = False

    def update(self, relevance: Tensor, explained: Tensor) -> None:
        """Count in relevance (B, ...) with what was sent down, (B,)."""
        self.add(functional.conservation_error(relevance, explained))


class PixelFlippingArea(SequenceMean):
    """Mean area under the pixel-flipping curve; `random_order` gives that of random orders instead.

    Args:
        patch: side of a patch in pixels.
        background: value of a background pixel.
        random_order: measure the baseline.
    """

    higher_is_better = False

    def __init__(self, patch: int = 7, background: float = -1.0, random_order: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.background = background
        self.random_order = random_order

    def update(self, network: Callable[[Tensor], Tensor], image: Tensor, relevance: Tensor, label: Tensor) -> None:
        """Count in pictures and relevance (B, 1, H, W) of a network's explained classes (B,)."""
        flipped = functional.pixel_flipping(network, image, relevance, label, self.patch, self.background)
        self.add(flipped.random_area if self.random_order else flipped.area)


class DeletionArea(SequenceMean):
    """Mean area under the deletion curve; `random_order` gives that of random orders instead.

    Args:
        size: of the parts, as [1, 28, 7] for time steps of seven pixel columns; see `patches`.
        baseline: what a deleted entry becomes; pixels of the background are -1.
        random_order: measure what any explanation should beat.
    """

    higher_is_better = False

    def __init__(self, size: Sequence[int], baseline: float = -1.0, random_order: bool = False) -> None:
        super().__init__()
        self.size = tuple(size)
        self.baseline = baseline
        self.random_order = random_order

    def update(self, network: Callable[[Tensor], Tensor], image: Tensor, relevance: Tensor, label: Tensor) -> None:
        """Count in inputs, of any kind, and relevance (B, ...) of a network's explained classes (B,)."""
        parts = patches(tuple(image.shape[1:]), self.size)
        found = deletion(network, image, relevance, label, parts, self.baseline)
        self.add(found.random_area if self.random_order else found.area)
