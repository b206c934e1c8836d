"""Warns of NaN and infinite numbers, which are seldom meant, and of which there is nothing to explain."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from rnnx_lightning.explain.inputs import Inputs, tensors_of
from rnnx_lightning.explain.refusals import NotFiniteWarning, warn


def total(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """The sum of all entries: finite if all of them are, unless they are huge. It does not wait for the device."""
    first, *others = [tensor.detach().sum(dtype=torch.float32).to(device) for tensor in tensors]
    return sum(others, first)


def warn_if_not_finite(x: Inputs, computed: Inputs) -> None:
    """Warn if entries of what was computed from an input are NaN or infinite; say so if some of the input are."""
    tensors = tensors_of(computed)
    if math.isfinite(total(tensors, tensors[0].device)) or not any(map(_count, tensors)):
        return
    parts = tensors_of(x)
    counts = list(map(_count, parts))
    if any(counts):
        shapes = [tuple(part.shape) for part in parts]
        names = [f"input {n} {shape}" for n, shape in enumerate(shapes, 1)] if len(parts) > 1 else ["the input"]
        numbers = zip(counts, parts, names, strict=True)
        what = [f"{count} of {part.numel()} entries of {name}" for count, part, name in numbers if count]
        reason = (
            f"{' and '.join(what)} are NaN or infinite. The relevance of these examples means nothing: leave them "
            "out, or replace the entries, as torch.nan_to_num does."
        )
    else:
        reason = (
            "The explained output or its relevance is NaN or infinite, although the input is finite. Look for "
            "weights that are NaN, for a division by 0, and for numbers that are too large for their type."
        )
    warn(reason, NotFiniteWarning)


def _count(tensor: Tensor) -> int:
    return int((~tensor.isfinite()).sum())
