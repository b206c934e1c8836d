"""Activations and gates that are written out: x * (1 + tanh(x)) is a function of x, relu6(x + 3) / 6 a gate."""

import math
from typing import Any

from torch import Tensor

from rnnx_lightning.explain.linear import IDENTITY
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.rows import CONSTANT, LINEAR, OPAQUE, PASS, RELU, SCALE, SUM, UNMOVED

STEPS = 32  # an activation is written in fewer operations


def never_negative(scale: Tensor | float) -> bool:
    """Whether no entry of a scale, or the number, is negative."""
    return bool((scale >= 0).all()) if isinstance(scale, Tensor) else scale >= 0


def is_number(factor: Tensor | float) -> bool:
    """Whether a factor is one number, be it learned: a tensor of one entry, and with no dimension for examples."""
    return not isinstance(factor, Tensor) or (factor.dim() < 2 and factor.numel() == 1)


def is_zero(value: Any) -> bool:
    """Whether a number or a constant is 0."""
    return not bool(value.any()) if isinstance(value, Tensor) else value == 0


def written_out(one: Node, two: Node, divided: bool = False) -> Node | None:
    """The value x if a product of two signals, or two / one, is an activation f(x) with f(0) = 0; else None."""
    for x in _reached(one):
        first, second = _vanishes(one, x), _vanishes(two, x)
        if first is not None and second is not None:
            return x if (second and not first if divided else first or second) else None
    return None


def follows(node: Node, x: Node) -> bool:
    """Whether a value is x, or made of x entry by entry by activations and factors that are not negative."""
    while (node := node.first) is not x.first:
        scaled = node.row is SCALE and node.call.nonnegative
        if not (scaled or (node.row in (PASS, RELU) and (node.magnitude or not node.gate)) or _is_copy(node)):
            return False
        (source,) = node.sources
        if source is None or source.shape != node.shape:
            return False
        node = source
    return True


def copied_from(node: Node) -> Node:
    """What a value is a copy of, in the same shape; else the value itself."""
    while node.call is UNMOVED:
        (source,) = node.sources
        assert source is not None  # else there would be no node
        node = source
    return node.first


def _is_copy(node: Node) -> bool:
    return not node.gate and node.call is UNMOVED


def is_hard_sigmoid(node: Node, low: float | None, high: float | None) -> bool:
    """Whether a value that is cut to [0, high] is x + high / 2, so that the result is a hard sigmoid."""
    if low is None and node.row is RELU and node.sources[0] is not None:  # it was cut at 0 before
        node, low = node.sources[0], 0
    if low != 0 or high is None or high <= 0:
        return False
    factor = 1.0
    while node.row is SCALE and isinstance(node.call.factor, int | float):
        (source,) = node.sources
        assert source is not None  # else there would be no node
        node, factor = source, factor * node.call.factor
    if node.row is not SUM:
        return False
    shifts = [s.call for s in node.sources if s is not None and s.row is CONSTANT and s.call.dim() == 0]
    return len(shifts) == 1 and math.isclose(factor * float(shifts[0]), high / 2)


def _sources(node: Node) -> list[Node]:
    """What each entry is computed from, if it is computed only from the same entries of other values."""
    if node.row is LINEAR:
        unchanged = len(node.call.maps) == 1 and node.call.maps[0].layer.operation is IDENTITY
        sources = node.sources if unchanged else ()
    else:
        sources = node.sources if node.row in (OPAQUE, PASS, RELU, SCALE, SUM) or _is_copy(node) else ()
    known = [source.first for source in sources if source is not None]
    return known if all(source.row is CONSTANT or source.shape == node.shape for source in known) else []


def _reached(node: Node) -> list[Node]:
    """The values that a value is computed from entry by entry, itself among them, the nearest first."""
    reached = [node.first]
    for each in reached:
        if len(reached) < STEPS:
            reached += [s for s in _sources(each) if s.row is not CONSTANT and all(s is not r for r in reached)]
    return reached


def _vanishes(node: Node, x: Node) -> bool | None:
    """Whether a function of x is 0 where x is 0, as far as can be seen; None: it depends on more than x."""
    ahead, seen, vanishes = [node.first], 0, True
    while ahead:
        each = ahead.pop()
        if each is x:
            continue
        sources, seen = _sources(each), seen + 1
        if each.row is CONSTANT or (each.gate and not each.magnitude):  # as 1 + x, or a sigmoid
            vanishes = False
        if (not sources and each.row is not CONSTANT) or seen > STEPS:
            return None
        ahead += sources
    return vanishes
