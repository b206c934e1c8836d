"""Scores of relevance: one pure function per score, one value per sequence. Relevance with NaN scores NaN."""

from collections.abc import Callable

import torch
from torch import Tensor

from rnnx_lightning.metrics.deletion import PixelFlipping, deletion, patches


def sample_relevance(relevance: Tensor, samples: int) -> Tensor:
    """Relevance summed over the pixels of each sample.

    Args:
        relevance: (B, 1, H, S * W).
        samples: S.

    Returns:
        (B, S).

    Raises:
        ValueError: the relevance cannot be divided into such samples.
    """
    if relevance.dim() != 4 or samples < 1 or relevance.shape[3] % samples:
        raise ValueError(
            f"relevance must have the shape (B, 1, H, W), W a multiple of {samples} samples, got "
            f"{tuple(relevance.shape)}"
        )
    return relevance.unflatten(-1, (samples, -1)).sum(dim=(1, 2, 4))


def _check_majority(relevance: Tensor, majority: Tensor) -> None:
    """Refuse shapes that do not fit, instead of broadcasting them."""
    shape = tuple(relevance.shape)
    if relevance.dim() != 4 or majority.dim() != 2 or len(majority) != shape[0] or shape[3] % majority.shape[1]:
        raise ValueError(
            "relevance and majority must have the shapes (B, 1, H, S * W) and (B, S), got "
            f"{shape} and {tuple(majority.shape)}"
        )


def majority_cosine_similarity(relevance: Tensor, majority: Tensor) -> Tensor:
    """cos(m, v) = m.v / (|m| |v|), v the relevance of each sample, 0 where |v| = 0 [Cho18].

    Args:
        relevance: (B, 1, H, S * W).
        majority: (B, S) bool.

    Returns:
        (B,) in [-1, 1]. It is 1 if relevance is spread evenly over the two majority samples, 0.816 if it is spread
        evenly over all three.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> relevance = torch.tensor([2.0, 1.0, 0.0]).repeat_interleave(28).expand(1, 1, 28, 84)
        >>> majority_cosine_similarity(relevance, torch.tensor([[True, True, False]]))
        tensor([0.9487])
    """
    _check_majority(relevance, majority)
    v = sample_relevance(relevance, majority.shape[1])
    # Squares neither over- nor underflow; a cosine does not depend on the scale, and so neither does its gradient.
    v = v / v.detach().abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    m = majority.to(v.dtype)
    norms = v.norm(dim=1) * m.norm(dim=1)
    some = norms != 0
    return torch.where(some, (m * v).sum(1) / torch.where(some, norms, 1.0), 0.0).clamp(-1, 1)


def pixel_mask(majority: Tensor, relevance: Tensor) -> Tensor:
    """From (B, S) bool to (B, 1, H, S * W) bool: True on the pixels of the majority samples."""
    _check_majority(relevance, majority)
    width = relevance.shape[-1] // majority.shape[1]
    return majority.bool().repeat_interleave(width, dim=1)[:, None, None, :].expand_as(relevance)


def relevance_mass_accuracy(relevance: Tensor, majority: Tensor) -> Tensor:
    """Share of the positive relevance that lies on majority samples [Arras et al., 2022].

    Args:
        relevance: (B, 1, H, S * W).
        majority: (B, S) bool.

    Returns:
        (B,) in [0, 1]; 0 if no relevance is positive.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> relevance = torch.tensor([3.0, 1.0, 1.0]).repeat_interleave(28).expand(1, 1, 28, 84)
        >>> relevance_mass_accuracy(relevance, torch.tensor([[True, True, False]]))
        tensor([0.8000])
    """
    positive = relevance.clamp(min=0)
    total = positive.flatten(1).sum(1)
    inside = torch.where(pixel_mask(majority, relevance), positive, 0.0).flatten(1).sum(1)
    return torch.where(total != 0, inside / total, 0.0)


def relevance_rank_accuracy(relevance: Tensor, majority: Tensor) -> Tensor:
    """Share of the K most relevant pixels that lie on majority samples [Arras et al., 2022].

    K is the number of pixels of the majority samples.

    Args:
        relevance: (B, 1, H, S * W).
        majority: (B, S) bool, with the same number of majority samples in every sequence.

    Returns:
        (B,) in [0, 1].

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> relevance = torch.tensor([3.0, 1.0, 2.0]).repeat_interleave(28).expand(1, 1, 28, 84)
        >>> relevance_rank_accuracy(relevance, torch.tensor([[True, True, False]]))
        tensor([0.5000])
    """
    mask = pixel_mask(majority, relevance).flatten(1)
    count = mask.sum(1, keepdim=True)
    order = relevance.flatten(1).argsort(dim=1, descending=True, stable=True)
    among_first = torch.arange(order.shape[1], device=order.device) < count
    share = (mask.gather(1, order) & among_first).sum(1) / count.squeeze(1)
    return share.masked_fill(relevance.flatten(1).isnan().any(1), torch.nan)


def conservation_error(relevance: Tensor, explained: Tensor) -> Tensor:
    """|R - sum of R_i| / |R|: how far the relevance of the pixels is from that of the output.

    Args:
        relevance: (B, ...), R_i.
        explained: (B,) the relevance R at the output: z_y, or max(z_y, 0) for the methods of the study.

    Returns:
        (B,) >= 0. If R is 0, the absolute error |sum of R_i|.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> conservation_error(torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([4.0]))
        tensor([0.1250])
    """
    if explained.shape != relevance.shape[:1]:
        raise ValueError(
            "relevance and explained must have the shapes (B, ...) and (B,), got "
            f"{tuple(relevance.shape)} and {tuple(explained.shape)}"
        )
    gap = (explained - relevance.flatten(1).sum(1)).abs()
    return torch.where(explained != 0, gap / explained.abs(), gap)


def pixel_flipping(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    relevance: Tensor,
    target: Tensor,
    patch: int = 7,
    background: float = -1.0,
    seed: int = 0,
) -> PixelFlipping:
    """Set patches to the background, the most relevant first, and measure the prediction [Samek et al., 2017].

    Args:
        model: maps (B, 1, H, W) to logits (B, K).
        x: (B, 1, H, W).
        relevance: (B, 1, H, W).
        target: (B,) explained class.
        patch: side of a patch in pixels; H and W are multiples of it.
        background: value of a background pixel.
        seed: seed of the random order.

    Returns:
        A `PixelFlipping`.

    Raises:
        ValueError: the picture cannot be divided into such patches; or see `deletion`.
    """
    height, width = x.shape[-2:]
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patch={patch} must divide height {height} and width {width} of the pictures")
    parts = patches(tuple(x.shape[1:]), (x.shape[1], patch, patch))
    return deletion(model, x, relevance, target, parts, background, seed, at_once=len(x))
