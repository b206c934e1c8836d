"""Centring: a value minus its mean, as norms do it or as a network writes it out."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.elementwise import is_number
from rnnx_lightning.explain.linear import Operation, held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import LINEAR, MOVE, SCALE
from rnnx_lightning.explain.tape import Tape


def centred(tape: Tape, func: Any, x: Tensor, dims: Sequence[int]) -> Tensor:
    """Record x minus its mean over some dimensions: a linear map with weights 1 - 1/n and -1/n."""
    width = math.prod(x.shape[d] for d in dims)
    weight = torch.tensor([1 - 1 / width, -1 / width], dtype=x.dtype, device=x.device)

    def apply(a: Tensor, w: Tensor) -> Tensor:
        return (w[0] - w[1]) * a + w[1] * a.sum(list(dims), keepdim=True)

    operation = Operation(apply, lambda factors, w, _: apply(factors, w))
    return tape.linear(func, x, operation, weight, None, apply(x, weight))


def averaged(tape: Tape, x: Tensor, mean: Tensor, sign: int = 1) -> Sequence[int] | None:
    """The dimensions over which the second value is the mean of the first (times the sign); None if it is none.

    That it is a linear map of the same entries is on the tape; that it is their mean is seen from its values.
    """
    node, source = tape.find(mean), tape.find(x)
    if node is None or source is None or source.gate:
        return None
    node = origin(node, scaled=True)
    if node.row is not LINEAR or node.sources[0] is None or origin(node.sources[0]) is not origin(source):
        return None
    dims = [d for d, step in enumerate(mean.expand(x.shape).stride()) if step == 0]
    if not dims or x.numel() == 0:
        return None
    now = held(x)
    rounding = 8 * torch.finfo(x.dtype).eps * now.abs().amax()
    same = (now.mean(dims, keepdim=True) - sign * held(mean)).abs() <= rounding
    return dims if bool(same.all()) else None


def origin(node: Node, scaled: bool = False) -> Node:
    """What a node's entries are moved from (by unsqueeze, expand, detach, ...), or are multiples of.

    Where they lie and how large they are does not matter: values are compared afterwards.
    """
    while (source := node.sources[0] if node.sources else None) is not None and (
        node.row is MOVE or (scaled and node.row is SCALE and is_number(node.call.factor))
    ):
        node = source
    return node
