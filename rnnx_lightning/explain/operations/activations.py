"""Activations, dropout, and operations where the winner takes all."""

import math
from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.elementwise import follows, is_hard_sigmoid, is_zero, never_negative
from rnnx_lightning.explain.linear import held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.table import aten, records, register
from rnnx_lightning.explain.operations.tokens import whole_numbers
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.rows import PASS, RELU, SOFT_MAXIMUM, VJP
from rnnx_lightning.explain.tape import Recorder, Tape


def activation(nonnegative: bool = False, keeps_signs: bool = True) -> Recorder:
    """A recorder for an activation with f(0) = 0: relevance passes unchanged.

    Args:
        nonnegative: whether its values are >= 0.
        keeps_signs: whether f(x) >= 0 for all x >= 0.
    """

    def record(tape: Tape, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        value = func(tensor, *args, **kwargs)
        node = tape.find(tensor)
        if node is None:
            return tape.refused(func, value, "Only its first argument may depend on the input.", *args)
        kept = keeps_signs and node.nonnegative
        if node.gate:
            return tape.gate_of(value, node, nonnegative=nonnegative or kept, entrywise=True)
        return tape.note(
            value, Node(PASS, (node,), value, nonnegative=nonnegative or (kept and node.pixels is None))
        )

    record.__doc__ = "An activation with f(0) = 0: relevance passes unchanged."
    return record


for _name in [
    "tanh",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "mish",
    "hardswish",
    "softshrink",
    "hardshrink",
    "prelu",
    "_prelu_kernel",
    "celu",
    "selu",
    "rrelu",
    "asinh",
    "atan",
    "sinh",
    "asin",
    "atanh",
    "erf",
    "expm1",
    "erfinv",
    "frac",
    "round",
    "trunc",
    "floor",
    "ceil",
    "nan_to_num",
]:
    for _operation in (getattr(aten, _name).default,) if hasattr(aten, _name) else ():
        register(_operation, activation())
for _operation in (aten.sin.default, aten.tan.default):
    register(_operation, activation(keeps_signs=False))


@records(
    "fake_quantize_per_tensor_affine_cachemask.default fake_quantize_per_channel_affine_cachemask.default "
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default"
)
def rounded(tape: Tape, func: Any, tensor: Tensor, *args: Any) -> Any:
    """Rounding for quantised networks: relevance passes unchanged."""
    value, mask = func(tensor, *args)
    return activation()(tape, lambda *_: value, tensor), mask


@records("relu.default")
def relu(tape: Tape, func: Any, tensor: Tensor) -> Tensor:
    """ReLU."""
    value = func(tensor)
    node = tape.node(tensor)
    if node.gate:
        return tape.gate_of(value, node)
    return tape.note(value, Node(RELU, (node,), value, nonnegative=True))


@records("hardtanh.default")
def hard_tanh(tape: Tape, func: Any, tensor: Tensor, low: float = -1, high: float = 1) -> Tensor:
    """An activation that saturates; with 0 as lower bound, a ReLU."""
    return tape.record(aten.clamp.default, (tensor, low, high), {})


@records("clamp_min.default threshold.default clamp.default")
def clamp(tape: Tape, func: Any, tensor: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """A ReLU by another name, an activation that saturates, or a hard sigmoid that is written out (a gate)."""
    value = func(tensor, low, high) if func is not aten.clamp_min.default else func(tensor, low)
    node = tape.find(tensor)
    if not value.is_floating_point():
        return whole_numbers(tape, func, tensor, low, value=value)
    if node is not None and node.gate:
        return tape.gate_of(value, node, nonnegative=never_negative(value))
    if (func is aten.threshold.default and (low, high) == (0, 0)) or (low == 0 and high is None):
        return relu(tape, aten.relu.default, tensor)
    if func is aten.threshold.default:
        return tape.record(aten.where.ScalarOther, (tensor > low, tensor, high), {})
    if func is aten.clamp.default and node is not None and is_hard_sigmoid(node, low, high):
        return tape.gate_of(value, node, nonnegative=True)
    if (low is None or low <= 0) and (high is None or high >= 0):
        return (
            activation(nonnegative=low == 0)(tape, func, tensor, low, high)
            if func is not aten.clamp_min.default
            else activation()(tape, func, tensor, low)
        )
    return bounded(tape, tensor, low, high)


def bounded(tape: Tape, tensor: Tensor, low: float | None, high: float | None) -> Tensor:
    """The larger of a tensor and a bound, the smaller of it and another: the winner takes all."""
    if low is not None:
        tensor = tape.record(aten.where.ScalarSelf, (tensor < low, low, tensor), {})
    if high is not None:
        tensor = tape.record(aten.where.ScalarSelf, (tensor > high, high, tensor), {})
    return tensor


@records("clamp.Tensor clamp_min.Tensor clamp_max.Tensor")
def clamp_by_tensors(
    tape: Tape, func: Any, tensor: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    """The same, with bounds that differ between entries."""
    bounds = (low,) if high is None else (low, high)
    value = func(tensor, *bounds)
    node = tape.find(tensor)
    if node is None or tape.find(low) is not None or tape.find(high) is not None:
        return tape.refused(func, value, "Only its first argument may depend on the input.", *bounds)
    if node.gate:
        return tape.gate_of(value, node, nonnegative=never_negative(value))
    if func is aten.clamp_max.Tensor:
        low, high = None, low
    if low is not None and high is None and not low.any() and value.shape == tensor.shape:
        return relu(tape, aten.relu.default, tensor)
    if (low is None or bool((low <= 0).all())) and (high is None or bool((high >= 0).all())):
        return activation()(tape, func, tensor, *bounds)
    for bound, name in ((low, aten.maximum.default), (high, aten.minimum.default)):
        if bound is not None:
            tensor = tape.record(name, (tensor, bound.to(tensor.dtype)), {})
    return tensor


@records("clamp_max.default")
def clamp_above(tape: Tape, func: Any, tensor: Tensor, high: float) -> Tensor:
    """An activation that saturates, or a hard sigmoid that is written out (a gate)."""
    if not tensor.is_floating_point():
        return whole_numbers(tape, func, tensor, high)
    node = tape.node(tensor)
    if not node.gate and is_hard_sigmoid(node, None, high):
        return tape.gate_of(func(tensor, high), node, nonnegative=True)
    if high >= 0:
        return activation()(tape, func, tensor, high)
    return bounded(tape, tensor, None, high)


def winner(tape: Tape, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Max pooling, a maximum over time, sorting: the winner takes all. A logsumexp shares by its softmax."""
    value, node = func(tensor, *args, **kwargs), tape.node(tensor)
    first = value[0] if isinstance(value, tuple | list) else value
    if node.gate and node.reason is not None:
        tape.gate_of(first, node)
        return value
    if not first.is_floating_point():
        tape.refused(func, first, "It has no rule for tokens: look them up before it.", tensor)
        return value
    if node.pixels is not None and node.pixels.mask is not None:
        tape.refused(func, first, "Its argument must be all pixels or all features, not a mixture.", tensor)
        return value

    def function(source: Tensor) -> Tensor:
        result = func(source, *args, **kwargs)
        return result[0] if isinstance(result, tuple | list) else result

    pixels = (
        None
        if node.pixels is None or isinstance(node.pixels.scale, Tensor) or isinstance(node.pixels.shift, Tensor)
        else Pixels(None, node.pixels.scale, node.pixels.shift)
    )
    row = SOFT_MAXIMUM if func is aten.logsumexp.default else VJP
    new = Node(row, (node,), first, (function, held(tensor)), node.nonnegative, pixels, node.gate)
    new.lost, new.magnitude = node.lost, node.magnitude
    tape.note(first, new)
    return value


for _operation in (
    aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default, aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default, aten.max.default, aten.max.dim, aten.amax.default, aten.topk.default,
    aten.sort.default, aten.sort.stable, aten.min.dim, aten.min.default, aten.amin.default, aten.kthvalue.default,
    aten.median.dim, aten.median.default, aten.nanmedian.dim, aten.cummax.default, aten.cummin.default,
    aten.max_pool2d.default, aten.fractional_max_pool2d.default, aten.logsumexp.default,
):  # fmt: skip
    register(_operation, winner)


@records("maximum.default minimum.default")
def larger(tape: Tape, func: Any, one: Tensor, two: Tensor) -> Tensor:
    """The elementwise larger or smaller of two; the maximum with 0 is ReLU."""
    for first, second in ((one, two), (two, one)):
        if (
            func is aten.maximum.default
            and tape.find(first) is None
            and bool((first == 0).all())
            and first.numel() <= second.numel()
        ):
            value = relu(tape, aten.relu.default, second)
            if value.shape == torch.broadcast_shapes(one.shape, two.shape):
                return value
    for tensor, other in ((one, two), (two, one)):
        node, scaled = tape.find(tensor), tape.find(other)
        if node is not None and scaled is not None and not node.gate and follows(scaled, node):
            return tape.note(func(one, two), Node(PASS, (node,), one))  # max(x, x / 10), a leaky ReLU
    lower = func is aten.maximum.default
    for tensor, bound in ((one, two), (two, one)):
        saturates = tape.find(bound) is None and bool((bound <= 0 if lower else bound >= 0).all())
        if saturates and torch.broadcast_shapes(one.shape, two.shape) == tensor.shape:
            clamp = aten.clamp_min.Tensor if lower else aten.clamp_max.Tensor
            return tape.record(clamp, (tensor, bound.to(tensor.dtype)), {})
    one, two = (
        torch.broadcast_tensors(one, two)
        if tape.find(one) is None and tape.find(two) is None
        else (
            tape.record(aten.expand.default, (t, torch.broadcast_shapes(one.shape, two.shape)), {})
            for t in (one, two)
        )
    )
    chosen = one >= two if func is aten.maximum.default else one <= two
    return tape.record(aten.where.self, (chosen, one, two), {})


@records("fmax.default fmin.default")
def larger_number(tape: Tape, func: Any, one: Tensor, two: Tensor) -> Tensor:
    """The same, where one is not a number (NaN)."""
    return tape.record(aten.maximum.default if func is aten.fmax.default else aten.minimum.default, (one, two), {})


@records("aminmax.default")
def extremes(tape: Tape, func: Any, tensor: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest: the winner takes all."""
    dims = [] if dim is None else [dim]
    least = tape.record(aten.amin.default, (tensor, dims, keepdim), {})
    return torch.return_types.aminmax((least, tape.record(aten.amax.default, (tensor, dims, keepdim), {})))


@records("logaddexp.default logaddexp2.default")
def soft_maximum(tape: Tape, func: Any, one: Tensor, two: Tensor) -> Tensor:
    """The logsumexp of two shares by their softmax; that of a value and 0 is its softplus."""
    shape = torch.broadcast_shapes(one.shape, two.shape)
    for tensor, other in ((one, two), (two, one)):
        zero = tape.find(other) is None and is_zero(other)
        if func is aten.logaddexp.default and zero and tensor.shape == shape:
            return tape.stand_in(func(one, two), tape.record(aten.softplus.default, (tensor,), {}))
    pair = tape.record(
        aten.stack.default, ([tape.record(aten.expand.default, (t, shape), {}) for t in (one, two)],), {}
    )
    if func is aten.logaddexp.default:
        return tape.record(aten.logsumexp.default, (pair, [0]), {})
    unit = math.log(2)
    natural = tape.record(aten.logsumexp.default, (tape.record(aten.mul.Scalar, (pair, unit), {}), [0]), {})
    return tape.record(aten.mul.Scalar, (natural, 1 / unit), {})


@records("rrelu_with_noise.default")
def leaky(
    tape: Tape, func: Any, tensor: Tensor, noise: Tensor, lower: float = 0.125, upper: float = 1 / 3,
    training: bool = False, generator: Any = None,
) -> Tensor:  # fmt: skip
    """A leaky ReLU; in train mode, with the slopes that were drawn."""
    if not training:
        return tape.record(aten.leaky_relu.default, (tensor, (lower + upper) / 2), {})
    func(held(tensor), noise, lower, upper, True, generator)
    return tape.record(aten.mul.Tensor, (tensor, noise), {})


@records("native_dropout.default")
def dropout(tape: Tape, func: Any, tensor: Tensor, p: float, train: bool | None) -> Any:
    """Dropped units get no relevance, because they are 0."""
    if not train or p == 0:
        return tape.record(aten.clone.default, (tensor,), {}), torch.ones_like(tensor, dtype=torch.bool)
    value, mask = func(torch.ones_like(tensor), p, True)
    return tape.record(aten.mul.Tensor, (tensor, value), {}), mask
