"""Entries that are added up, averaged or compared where an index says, as messages of a graph are."""

from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.comparisons import cuts_off
from rnnx_lightning.explain.linear import held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.activations import winner
from rnnx_lightning.explain.operations.linear_maps import total
from rnnx_lightning.explain.operations.shapes import by_gradient, moving
from rnnx_lightning.explain.operations.table import aten, records
from rnnx_lightning.explain.operations.writes import writing
from rnnx_lightning.explain.rows import MOVE, Movement
from rnnx_lightning.explain.tape import Tape


def gathered(tape: Tape, base: Tensor, source: Tensor, add_up: Any) -> Tensor:
    """`add_up` of a source, on top of a base that may be zeros."""
    node = tape.find(source)
    if node is None:
        return tape.record(aten.add.Tensor, (base, add_up(source)), {})
    result = total(tape, add_up, source)
    if tape.find(base) is None and not base.any():  # places that nothing is added to are padding
        present = torch.ones_like(held(source)) if node.present is None else node.present.to(result.dtype)
        tape.node(result).present = add_up(present) != 0
        return result
    return tape.record(aten.add.Tensor, (base, result), {})


def counted(tape: Tape, value: Tensor, tokens: Tensor, source: Tensor, chosen: Any) -> Tensor:
    """What constants add up to at tokens, such as a bag of words: a token has its share of its entry's relevance.

    Where it scales signals, as the number of messages does, it has none. `chosen` gives the entries at the tokens.
    """
    node, whole = tape.node(tokens), held(value).masked_fill(value == 0, 1)

    def undo(part: Tensor) -> Tensor:
        return (chosen(part / whole) * held(source)).sum_to_size(tokens.shape)

    made = Node(MOVE, (node,), value, Movement(lambda part: part, undo))
    made.dtype, made.gate, made.magnitude = (value.dtype if value.is_floating_point() else node.dtype), True, True
    return tape.note(value, made)


@records("index_add.default scatter_add.default")
def add_at(
    tape: Tape, func: Any, base: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """Entries are added where an index says: a linear map."""
    if func is aten.scatter_add.default and not any(map(tape.find, (base, source))):
        own = source[tuple(map(slice, index.shape))]
        return counted(tape, func(base, dim, index, source), index, own, lambda part: part.gather(dim, index))
    zeros = torch.zeros_like(held(base))
    if alpha != 1:
        source = tape.record(aten.mul.Scalar, (source, alpha), {})
    return gathered(tape, base, source, lambda part: func(zeros.to(part.dtype), dim, index, part))


@records("scatter_reduce.two index_reduce.default")
def scatter_reduce(
    tape: Tape,
    func: Any,
    base: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """Entries are added, averaged or compared where an index says."""
    start = held(base)
    if tape.find(base) is not None or tape.find(source) is None or reduce in ("prod", "multiply"):
        value = func(base, dim, index, source, reduce, include_self=include_self)
        return tape.refused(func, value, "Reduce into a constant tensor, and not by a product.", base)

    def apply(part: Tensor, *_: Any) -> Tensor:
        return func(start.to(part.dtype), dim, index, part, reduce, include_self=include_self)

    if reduce in ("amax", "amin"):
        return winner(tape, apply, source)
    zeros = apply(torch.zeros_like(held(source)))
    if not zeros.any():
        return total(tape, apply, source)
    linear = total(tape, lambda part: apply(part) - zeros.to(part.dtype), source)
    return tape.record(aten.add.Tensor, (linear, zeros), {})


@records("index_put.default")
def index_put(
    tape: Tape, func: Any, base: Tensor, indices: Any, source: Tensor, accumulate: bool = False
) -> Tensor:
    """A tensor is written into another, or added to it."""
    if not accumulate and len(indices) == 1 and cuts_off(tape, base, indices[0], source):
        return tape.record(aten.relu.default, (base,), {})  # x[x < 0] = 0
    if not accumulate:
        return write(tape, func, base, indices, source)
    tokens = [index for index in indices if tape.find(index) is not None]
    if len(tokens) == 1 and not any(map(tape.find, (base, source))):
        value = func(base, indices, source, True)
        return counted(tape, value, tokens[0], source, lambda part: part[tuple(indices)])
    zeros = torch.zeros_like(held(base))
    return gathered(tape, base, source, lambda part: func(zeros.to(part.dtype), indices, part, True))


write = writing(2)


@records("col2im.default")
def fold(
    tape: Tape,
    func: Any,
    x: Tensor,
    size: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Tensor:
    """Windows of a picture are added up; those that do not overlap are moved to their places."""
    apart = all(s > d * (k - 1) for s, d, k in zip(stride, dilation, kernel, strict=True))
    record = moving(by_gradient, pads=True) if apart else total
    made = record(tape, func, x, size, kernel, dilation, padding, stride)
    value = made.clone()  # torch's may lie in more memory than it fills, as if it were a part of another tensor
    tape.mark(value, tape.find(made))
    return value
