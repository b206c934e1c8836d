"""Normalisation: batch norm scales and shifts; others centre, and divide by a value that counts as constant."""

import math
from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.elementwise import never_negative
from rnnx_lightning.explain.linear import held
from rnnx_lightning.explain.operations.arithmetic import plus_constant
from rnnx_lightning.explain.operations.centring import centred
from rnnx_lightning.explain.operations.linear_maps import reduced
from rnnx_lightning.explain.operations.table import SCALES, aten, records
from rnnx_lightning.explain.tape import Tape


@records(
    "native_batch_norm.default _native_batch_norm_legit_no_training.default "
    "cudnn_batch_norm.default miopen_batch_norm.default _native_batch_norm_legit.default"
)
def batch_norm(
    tape: Tape,
    func: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    *rest: Any,
) -> Any:
    """Batch norm in eval mode: a linear map of each channel."""
    value = func(x, weight, bias, mean, variance, *rest)
    training = func is not aten._native_batch_norm_legit_no_training.default and rest[0]
    shape = (1, -1, *[1] * (x.dim() - 2))
    if training and len(x) == 1 and x.dim() > 2:  # a batch of one example: instance norm
        dims = list(range(2, x.dim()))
        scale = inverse_deviation(held(x), dims, rest[-1])
        result = tape.record(aten.mul.Tensor, (centred(tape, func, x, dims), scale), {})
        if weight is not None:
            result = tape.record(aten.mul.Tensor, (result, weight.view(shape)), {})
        if bias is not None:
            result = shifted(tape, result, bias.view(shape))
        return (tape.stand_in(value[0], result), *value[1:])
    if training or mean is None or variance is None:
        tape.refused(func, value[0], "In train mode it depends on other examples: call model.eval().", x)
        return value
    scale = torch.rsqrt(variance + rest[-1])
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    result = scaled_and_shifted(tape, x, scale.view(shape), shift.view(shape))
    return (tape.stand_in(value[0], result), *value[1:])


@records("_native_batch_norm_legit.no_stats")
def without_statistics(tape: Tape, func: Any, x: Tensor, *rest: Any) -> Any:
    """Instance norm, as an exported network has it."""
    weight, bias, *options = rest
    return batch_norm(tape, aten.native_batch_norm.default, x, weight, bias, None, None, *options)


def scaled_and_shifted(tape: Tape, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Record x * scale + shift, merged with the sum x. That of gates scales signals, too."""
    node = tape.find(x)
    gate = node is not None and node.gate and not node.magnitude and node.reason is None
    if node is not None and node.rule is None and node.pixels is None and (gate or not node.gate):
        tape.mark(x, tape.as_sum(node, x))
    result = tape.record(aten.mul.Tensor, (x, scale.to(x.dtype)), {})
    if node is not None and node.rule is None:
        tape.mark(x, node)
    result = result if shift is None else shifted(tape, result, shift.to(x.dtype))
    if gate:
        made = tape.node(result)
        made.gate, made.nonnegative = True, never_negative(result)
    return result


def shifted(tape: Tape, x: Tensor, shift: Tensor) -> Tensor:
    """Record x + shift. The shift is treated like the bias of the layer before, by that layer's rule."""
    node = tape.find(x)
    if node is None:
        return tape.record(aten.add.Tensor, (x, shift), {})
    return plus_constant(tape, x + shift, node, x, shift, bias=True)


def inverse_deviation(x: Tensor, dims: list[int], epsilon: float) -> Tensor:
    """1 / sqrt(variance + epsilon). Fused norms return it, too, but without an autograd graph."""
    return torch.rsqrt(x.var(dims, unbiased=False, keepdim=True) + epsilon)


@records("native_layer_norm.default")
def layer_norm(
    tape: Tape, func: Any, x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> Any:
    """Layer norm: centring is a linear map, the standard deviation a constant [Ali et al., 2022]."""
    value = func(x, shape, weight, bias, epsilon)
    dims = list(range(-len(shape), 0))
    scale = inverse_deviation(held(x), dims, epsilon) if torch.is_grad_enabled() else value[2]
    result = tape.record(aten.mul.Tensor, (centred(tape, func, x, dims), scale), {})
    if weight is not None:
        result = tape.record(aten.mul.Tensor, (result, weight), {})
    if bias is not None:
        result = shifted(tape, result, bias)
    return (tape.stand_in(value[0], result), *value[1:])


@records("native_group_norm.default")
def group_norm(
    tape: Tape,
    func: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    epsilon: float,
) -> Any:
    """Group norm: like layer norm, over the channels of a group and all positions."""
    value = func(x, weight, bias, n, c, hw, groups, epsilon)
    grouped = tape.record(aten.reshape.default, (x, [n, groups, -1]), {})
    scale = inverse_deviation(held(grouped), [-1], epsilon) if torch.is_grad_enabled() else value[2].unsqueeze(-1)
    result = tape.record(aten.mul.Tensor, (centred(tape, func, grouped, [-1]), scale), {})
    result = tape.record(aten.view.default, (result, list(x.shape)), {})
    shape = (1, -1, *[1] * (x.dim() - 2))
    if weight is not None:
        result = tape.record(aten.mul.Tensor, (result, weight.view(shape)), {})
    if bias is not None:
        result = shifted(tape, result, bias.view(shape))
    return (tape.stand_in(value[0], result), *value[1:])


@records("_fused_rms_norm.default rms_norm.default")
def rms_norm(
    tape: Tape, func: Any, x: Tensor, shape: list[int], weight: Tensor | None, epsilon: float | None
) -> Any:
    """RMS norm: the root mean square is a constant."""
    value = func(x, shape, weight, epsilon)
    small = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    scale = torch.rsqrt(held(x).square().mean(list(range(-len(shape), 0)), keepdim=True) + small)
    result = tape.record(aten.mul.Tensor, (x, scale), {})
    if weight is not None:
        result = tape.record(aten.mul.Tensor, (result, weight), {})
    if isinstance(value, Tensor):
        return tape.stand_in(value, result)
    return (tape.stand_in(value[0], result), *value[1:])


@records("var.correction std.correction")
def deviation(
    tape: Tape, func: Any, x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """A deviation gets no relevance as a scale; as a signal, it is the norm of the centred input."""
    value, node = func(x, dim, correction=correction, keepdim=keepdim), tape.node(x)
    if node.refusal is not None or node.reason is not None:
        return tape.gate_of(value, node, nonnegative=True)
    dims = reduced(x, dim)
    centre = centred(tape, func, x, dims)
    made = tape.record(aten.linalg_vector_norm.default, (centre, 2, dims, keepdim), {})
    freedom = math.prod(x.shape[d] for d in dims) - (1 if correction is None else correction)
    made = tape.record(aten.mul.Scalar, (made, freedom**-0.5 if freedom > 0 else math.nan), {})
    if func is aten.var.correction:
        made = tape.record(aten.pow.Tensor_Scalar, (made, 2), {})
    return tape.stand_in(value, made)


@records("var_mean.correction std_mean.correction")
def moments(tape: Tape, func: Any, x: Tensor, dim: Any = None, *, keepdim: bool = False, **kwargs: Any) -> Any:
    """A mean is a linear map, a deviation a scale or a norm."""
    first = aten.var.correction if func is aten.var_mean.correction else aten.std.correction
    dims = reduced(x, dim)
    deviation = tape.record(first, (x, dims), {"keepdim": keepdim, **kwargs})
    return deviation, tape.record(aten.mean.dim, (x, dims, keepdim), {})


@records("linalg_vector_norm.default norm.ScalarOpt_dim norm.Scalar")
def vector_norm(
    tape: Tape,
    func: Any,
    x: Tensor,
    order: float | None = 2,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Tensor:
    """A norm gets no relevance as a scale; as a signal (a distance), it is a sum weighted by its gradient."""
    value = func(x, order, dim, keepdim, **kwargs) if func is not aten.norm.Scalar else func(x, order)
    order = 2 if order is None else float(order)
    node = tape.find(x)
    if node is None:
        return tape.refused(func, value, "", *kwargs.values())
    dims = reduced(x, dim)
    if math.isinf(order):
        extreme = aten.amax.default if order > 0 else aten.amin.default
        return tape.record(extreme, (tape.record(aten.abs.default, (x,), {}), dims, keepdim), {})
    if node.refusal is not None or node.reason is not None or order < 1:
        advice = "As a signal, only a norm of order 1 or more has a rule."
        return tape.gate_of(value, node, nonnegative=True, refusal=advice, func=func)
    now = held(x)
    whole = torch.linalg.vector_norm(now, order, dims, keepdim=True)
    weight = now.sign() * (now.abs() / whole.masked_fill(whole == 0, torch.inf)) ** (order - 1)
    made = tape.record(aten.sum.dim_IntList, (tape.record(aten.mul.Tensor, (x, weight), {}), dims, keepdim), {})
    found = tape.node(made)
    found.gate = found.magnitude = found.nonnegative = True
    return made


@records("_cdist_forward.default _euclidean_dist.default")
def distances(tape: Tape, func: Any, one: Tensor, two: Tensor, order: float = 2, *_: Any) -> Tensor:
    """The norms of all differences."""
    rows, columns = (tape.record(aten.unsqueeze.default, pair, {}) for pair in ((one, -2), (two, -3)))
    difference = tape.record(aten.sub.Tensor, (rows, columns), {})
    return tape.record(aten.linalg_vector_norm.default, (difference, order, [-1]), {})


SCALES.update((vector_norm, deviation))
