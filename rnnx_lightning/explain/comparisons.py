"""Activations that are written with a comparison: `x * (x > 0)`, `torch.where(x > 0, x, 0.1 * x)`, `x[x < 0] = 0`.

They are no masks, which would scale a sum or choose among sums, but functions of the sum that they read.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rnnx_lightning.explain.elementwise import copied_from, follows, is_zero
from rnnx_lightning.explain.node import Node

if TYPE_CHECKING:
    from rnnx_lightning.explain.tape import Tape

aten = torch.ops.aten
NOTE = "_rnnx_above"  # the attribute of a mask that holds what was compared
_ABOVE = {aten.gt.Scalar, aten.gt.Tensor, aten.ge.Scalar, aten.ge.Tensor}
_BELOW = {aten.lt.Scalar, aten.lt.Tensor, aten.le.Scalar, aten.le.Tensor}
_STEP = aten.heaviside.default
_NOT = {aten.logical_not.default, aten.bitwise_not.default}
_SAME = {aten._to_copy.default, aten.clone.default, aten.detach.default, aten.alias.default}
_NOTED = _ABOVE | _BELOW | _NOT | _SAME | {_STEP}


class Compared(NamedTuple):
    """A mask that is True where a value is above 0, or where it is below; at 0, it may be either."""

    node: Node
    above: bool


def noted(tape: "Tape", func: Any, args: Any, mask: Any) -> Any:
    """The result of an operation without relevance; if it is a mask, with a note of what it compares."""
    if func not in _NOTED:
        return mask
    if func in _ABOVE or func in _BELOW or func is _STEP:
        above = func not in _BELOW
        one, two = args if func is not _STEP else (args[0], 0)
        if tape.find(one) is None:
            one, two, above = two, one, not above
        node = tape.find(one)
        if node is not None and tape.find(two) is None and is_zero(two):
            setattr(mask, NOTE, Compared(copied_from(node), above))
    elif (known := compared(tape, args[0])) is not None:
        setattr(mask, NOTE, known._replace(above=known.above ^ (func in _NOT)))
    return mask


def forget(mask: Any) -> None:
    """A mask that is overwritten no longer shows where the value was above 0."""
    if isinstance(mask, Tensor):
        for tensor in (mask, mask._base):
            if tensor is not None:
                tensor.__dict__.pop(NOTE, None)


def also(mask: Tensor, alias: Tensor) -> Tensor:
    """An alias of a mask shows what the mask shows."""
    if (known := getattr(mask, NOTE, None)) is not None:
        setattr(alias, NOTE, known)
    return alias


def compared(tape: "Tape", mask: Any) -> Compared | None:
    """What a mask compares with 0; None if that is not known."""
    known: Compared | None = getattr(mask, NOTE, None)
    return known if known is not None and known.node.tape is tape else None


def rectifies(tape: "Tape", tensor: Any, mask: Any, above: bool = True) -> bool:
    """Whether a value that is kept where a mask is True (`above`) or where it is False is its ReLU."""
    known, node = compared(tape, mask), tape.find(tensor)
    if known is None or node is None or known.above is not above or tensor.shape != mask.shape:
        return False
    return known.node is copied_from(node)


def cuts_off(tape: "Tape", tensor: Tensor, mask: Any, value: Any) -> bool:
    """Whether `tensor[mask] = value` makes a ReLU of a tensor."""
    return tape.find(value) is None and is_zero(value) and rectifies(tape, tensor, mask, above=False)


def chooses(tape: "Tape", mask: Any, one: Any, two: Any) -> Node | None:
    """The value x if a mask of its signs chooses between two functions of it, as in a leaky ReLU; else None."""
    known = compared(tape, mask)
    if known is None or known.node.gate or known.node.shape != mask.shape:
        return None
    for part in (one, two):
        node = tape.find(part)
        if not (is_zero(part) if node is None else follows(node, known.node)):
            return None
    return known.node
