"""Pixel flipping for any input: delete patches, time steps, variables or tokens, the most relevant first."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class PixelFlipping(NamedTuple):
    """The prediction as parts are set to a baseline, one after another.

    Attributes:
        curve: (B, P + 1) probability of the explained class after deleting 0 to P parts, the most relevant first.
        random_curve: the same with parts in random order.
    """

    curve: Tensor
    random_curve: Tensor

    @property
    def area(self) -> Tensor:
        """(B,) mean height of the curve; lower is better."""
        return torch.trapezoid(self.curve, dim=1) / (self.curve.shape[1] - 1)

    @property
    def random_area(self) -> Tensor:
        """(B,) the same for random order."""
        return torch.trapezoid(self.random_curve, dim=1) / (self.random_curve.shape[1] - 1)


def patches(shape: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Divide an example into parts of equal size, and number them.

    Args:
        shape: of one example, such as (1, 28, 84), (T, V) or (T,).
        size: of a part, such as (1, 7, 7), (1, V) for whole time steps, or (1,) for tokens.

    Returns:
        int64 of shape `shape`: the number of each entry's part, 0 to P - 1 in row-major order.

    Raises:
        ValueError: the shape cannot be divided into such parts.

    Examples:
        >>> patches((2, 4), (1, 2))
        tensor([[0, 0, 1, 1],
                [2, 2, 3, 3]])
    """
    if len(size) != len(shape) or any(s < 1 or n % s for n, s in zip(shape, size, strict=True)):
        raise ValueError(f"parts of size {size} must divide examples of shape {shape}")
    part = torch.zeros(shape, dtype=torch.long)
    for dim, (n, s) in enumerate(zip(shape, size, strict=True)):
        place = torch.arange(n).div(s, rounding_mode="floor")
        part = part * (n // s) + place.view(-1, *[1] * (len(shape) - dim - 1))
    return part


@torch.no_grad()
def deletion(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    relevance: Tensor,
    target: Tensor,
    parts: Tensor,
    baseline: float | Tensor,
    seed: int = 0,
    at_once: int = 1024,
) -> PixelFlipping:
    """Set parts to a baseline, the most relevant first, and measure the prediction [Samek et al., 2017].

    The relevance of a part is the sum over its entries. Among equally relevant parts, the first is deleted first.

    Args:
        model: maps (N, ...) to logits (N, K).
        x: (B, ...) numbers, or int64 tokens.
        relevance: of the shape of x.
        target: (B,) explained class.
        parts: of the shape of an example: the number of each entry's part, 0 to P - 1; see `patches`. The entries
            of a part need not be neighbours.
        baseline: the value of a deleted entry: a number, a token, or a tensor that broadcasts to x.
        seed: seed of the random order, which is measured for comparison.
        at_once: number of examples per call of the model; at least B are used.

    Returns:
        A `PixelFlipping` with curves (B, P + 1) of the probability of the explained class. The one by relevance
        is NaN for an example whose relevance has NaN.

    Raises:
        ValueError: shapes do not fit, or parts are not numbered from 0.
    """
    if relevance.shape != x.shape or parts.shape != x.shape[1:]:
        raise ValueError(
            f"relevance must have the shape of x, {tuple(x.shape)}, and parts that of an example, got "
            f"{tuple(relevance.shape)} and {tuple(parts.shape)}"
        )
    if target.shape != x.shape[:1]:
        raise ValueError(f"target must be a class for each of {len(x)} examples, got {tuple(target.shape)}")
    parts = parts.to(x.device).flatten()
    count = int(parts.max()) + 1
    if parts.is_floating_point() or int(parts.min()) < 0 or len(torch.unique(parts)) < count:
        raise ValueError(f"parts must be integers from 0 on, without gaps, got {torch.unique(parts).tolist()}")
    flat = relevance.flatten(1)
    score = flat.new_zeros(len(x), count).index_add_(1, parts, flat)
    generator = torch.Generator(x.device).manual_seed(seed)
    random = torch.rand(score.shape, generator=generator, device=x.device)
    filler = torch.as_tensor(baseline, dtype=x.dtype, device=x.device)
    curves = []
    for order in (score, random):
        rank = order.argsort(dim=1, descending=True, stable=True).argsort(dim=1)[:, parts].view_as(x)
        heights = []
        for numbers in torch.arange(count + 1, device=x.device).split(max(at_once // len(x), 1)):
            gone = numbers.view(-1, *[1] * x.dim())
            left = torch.where(rank < gone, filler, x).flatten(0, 1)
            probability = model(left).softmax(1).unflatten(0, (len(numbers), len(x)))
            index = target.to(x.device).view(1, -1, 1).expand(len(numbers), -1, 1)
            heights.append(probability.gather(2, index).squeeze(2))
        curves.append(torch.cat(heights).T)
    by_relevance, at_random = curves
    return PixelFlipping(by_relevance.masked_fill(score.isnan().any(1, keepdim=True), torch.nan), at_random)
