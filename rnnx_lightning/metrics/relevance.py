"""The scores as torchmetrics: a sum and a count, exact over any number of batches and processes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from rnnx_lightning.metrics import functional
from rnnx_lightning.metrics.deletion import deletion, patches


class SequenceMean(Metric):
    """The mean of one value per sequence; the base class of scores.

    Attributes:
        values: (B,) the values that were added last; they are not collected from other processes.
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
        """Add (B,) values."""
        self.values = values
        self.total += values.sum(dtype=self.total.dtype)
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean so far; 0 before the first sequence."""
        return (self.total / self.count.clamp(min=1)).float()


class MajorityCosineSimilarity(SequenceMean):
    """Mean of `functional.majority_cosine_similarity`.

    Examples:
        >>> score = MajorityCosineSimilarity()
        >>> relevance = torch.tensor([2.0, 1.0, 0.0]).repeat_interleave(28).expand(1, 1, 28, 84)
        >>> score.update(relevance, torch.tensor([[True, True, False]]))
        >>> score.compute()
        tensor(0.9487)
    """

    higher_is_better = True

    def update(self, relevance: Tensor, majority: Tensor) -> None:
        """Add relevance (B, 1, H, S * W) with its majority masks (B, S)."""
        self.add(functional.majority_cosine_similarity(relevance, majority))


class RelevanceMassAccuracy(SequenceMean):
    """Mean of `functional.relevance_mass_accuracy`."""

    higher_is_better = True

    def update(self, relevance: Tensor, majority: Tensor) -> None:
        """Add relevance (B, 1, H, S * W) with its majority masks (B, S)."""
        self.add(functional.relevance_mass_accuracy(relevance, majority))


class RelevanceRankAccuracy(SequenceMean):
    """Mean of `functional.relevance_rank_accuracy`."""

    higher_is_better = True

    def update(self, relevance: Tensor, majority: Tensor) -> None:
        """Add relevance (B, 1, H, S * W) with its majority masks (B, S)."""
        self.add(functional.relevance_rank_accuracy(relevance, majority))


class ConservationError(SequenceMean):
    """Mean of `functional.conservation_error`."""

    higher_is_better = False

    def update(self, relevance: Tensor, explained: Tensor) -> None:
        """Add relevance (B, ...) with the relevance at the output, (B,)."""
        self.add(functional.conservation_error(relevance, explained))


class PixelFlippingArea(SequenceMean):
    """Mean area under the pixel-flipping curve; lower is better.

    Args:
        patch: side of a patch in pixels.
        background: value of a background pixel.
        random_order: measure random orders instead, as a baseline.
    """

    higher_is_better = False

    def __init__(self, patch: int = 7, background: float = -1.0, random_order: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.background = background
        self.random_order = random_order

    def update(self, network: Callable[[Tensor], Tensor], image: Tensor, relevance: Tensor, label: Tensor) -> None:
        """Add pictures and relevance (B, 1, H, W) for the explained classes (B,) of a network."""
        flipped = functional.pixel_flipping(network, image, relevance, label, self.patch, self.background)
        self.add(flipped.random_area if self.random_order else flipped.area)


class DeletionArea(SequenceMean):
    """Mean area under the deletion curve; lower is better.

    Args:
        size: of the parts, such as [1, 28, 7] for time steps of seven pixel columns; see `deletion.patches`.
        baseline: the value of a deleted entry; background pixels are -1.
        random_order: measure random orders instead, as a baseline.
    """

    higher_is_better = False

    def __init__(self, size: Sequence[int], baseline: float = -1.0, random_order: bool = False) -> None:
        super().__init__()
        self.size = tuple(size)
        self.baseline = baseline
        self.random_order = random_order

    def update(self, network: Callable[[Tensor], Tensor], image: Tensor, relevance: Tensor, label: Tensor) -> None:
        """Add inputs of any kind and relevance (B, ...) for the explained classes (B,) of a network."""
        parts = patches(tuple(image.shape[1:]), self.size)
        found = deletion(network, image, relevance, label, parts, self.baseline)
        self.add(found.random_area if self.random_order else found.area)
