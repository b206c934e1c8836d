"""Stratified splits of a labelled set into training and validation images."""

import torch
from torch import Tensor

from rnnx_lightning.seeding import seeded_generator


def stratified_split(
    labels: Tensor, *, seed: int, validation_share: float, folds: int | None = None, fold: int = 0
) -> tuple[Tensor, Tensor]:
    """Split images so that each class keeps its share on both sides.

    Args:
        labels: (N,) int64.
        seed: the only source of randomness.
        validation_share: share of each class that is used for validation, in (0, 1); ignored with `folds`.
        folds: for cross-validation: number of equal parts of each class, of which part `fold` is for validation.
        fold: 0 .. folds - 1.

    Returns:
        Positions of the training images and of the validation images, ascending.

    Raises:
        ValueError: a share or fold is out of range.
    """
    if folds is not None and folds < 2:
        raise ValueError(f"folds={folds} must be at least 2, or null for a single split")
    if folds is not None and not 0 <= fold < folds:
        raise ValueError(f"fold={fold} must lie between 0 and folds-1={folds - 1}")
    if folds is None and not 0 < validation_share < 1:
        raise ValueError(f"validation_share={validation_share} must lie between 0 and 1, both excluded")
    shuffled = torch.randperm(len(labels), generator=seeded_generator("split", seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    count = torch.bincount(labels)
    position = torch.arange(len(labels)) - (count.cumsum(0) - count)[labels[by_class]]  # inside the class
    if folds is None:
        validates = position < (count[labels[by_class]] * validation_share).round()
    else:
        validates = position % folds == fold
    return by_class[~validates].sort().values, by_class[validates].sort().values
