"""Averages and interpolation with squared weights, or with 1 in their place: for w^2, flat and spread biases."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rnnx_lightning.explain.linear import Operation
from rnnx_lightning.explain.operations.table import aten

Weighted = Callable[[Literal["square", "ones"]], Operation]
POOLS = (aten.avg_pool2d.default, aten.avg_pool3d.default)
ADAPTIVE = (aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
RESIZED = (
    aten.upsample_linear1d.default,
    aten.upsample_bilinear2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.default,
)


def weighted(func: Any, x: Tensor, value: Tensor, args: Any, kwargs: Any) -> Weighted | None:
    """How an operation of `x` is computed with other weights; None if its weights are 1."""
    if func in (aten.mean.dim, aten.mean.default):
        count = x.numel() / max(value.numel(), 1)
        return _even(lambda a: func(a, *args, **kwargs), lambda _: count)
    if func in POOLS:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        given = dict(zip(names, args, strict=False)) | kwargs | {"divisor_override": 1}
        return _even(lambda a: func(a, *args, **kwargs), lambda one: func(one, **given))
    if func in ADAPTIVE:
        old, new = (t.shape[-len(args[0]) :] for t in (x, value))
        return _even(lambda a: func(a, *args, **kwargs), lambda one: _windows(old, new).to(one))
    if func in RESIZED:
        new = value.shape
        return lambda part: Operation(lambda a, _: _resized(a, part, _along_dims(a, new, *args, **kwargs)))
    return None


def _even(average: Callable[[Tensor], Tensor], count: Callable[[Tensor], Tensor | float]) -> Weighted:
    """Of averages: the weights of an entry are equal, and so many that `count` gives their number."""

    def changed(part: Literal["square", "ones"]) -> Operation:
        def apply(a: Tensor, _: Any) -> Tensor:
            one = torch.ones_like(a)
            each = average(one) / count(one)
            return average(a) * (1 / each if part == "ones" else each)

        return Operation(apply)

    return changed


def _windows(old: Sequence[int], new: Sequence[int]) -> Tensor:
    """How many entries each entry of adaptive pooling is the average of."""
    count = torch.ones(())
    for before, after in zip(old, new, strict=True):
        sizes = [math.ceil((i + 1) * before / after) - i * before // after for i in range(after)]
        count = count[..., None] * torch.tensor(sizes)
    return count


def _along_dims(a: Tensor, new: torch.Size, size: Any, corners: bool, *scales: Any, **more: Any) -> list[Tensor]:
    """The matrix (old, new) of each dimension that is resized."""
    given = [*scales, *more.values()]
    factors = given[0] if given and isinstance(given[0], list | tuple) else given or [None] * (a.dim() - 2)
    matrices = []
    for before, after, factor in zip(a.shape[2:], new[2:], factors, strict=True):
        unit = torch.eye(before, dtype=a.dtype, device=a.device)[:, None]
        matrices.append(aten.upsample_linear1d.default(unit, [after], corners, factor)[:, 0])
    return matrices


def _resized(a: Tensor, part: Literal["square", "ones"], matrices: Sequence[Tensor]) -> Tensor:
    for dim, matrix in enumerate(matrices, 2):
        changed = matrix.square() if part == "square" else (matrix != 0).to(matrix.dtype)
        a = (a.movedim(dim, -1) @ changed).movedim(-1, dim)
    return a
