"""The kinds of operation that are linear in what is made of the input."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.linear import LinearMap, Operation
from rnnx_lightning.explain.tracing import PendingSum, RelevanceTracer, Traced


def apply_linear(
    tracer: RelevanceTracer,
    func: Any,
    source: Tensor,
    operation: Operation,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    value: Callable[[], Tensor] | None = None,
) -> Tensor:
    """One call of a linear operation, as a pending sum.

    Args:
        tracer: the tracer.
        func: the operation, for messages.
        source: what is made of the input.
        operation: what is done, without bias.
        weight: the constant factor; None where there is none and all weights are >= 0.
        bias: broadcastable to the output.
        value: gives the output as the network itself computes it; None: as `operation` and `bias` do.
    """
    advice = "Only one of its factors may depend on the input."
    info = tracer.known(source, func, advice)
    if tracer.info(weight) is not None or tracer.info(bias) is not None:
        tracer.refuse(func, advice)
    source = tracer.close(source)
    layer = LinearMap(
        value=source.detach(),
        operation=operation,
        weight=weight,
        bias=None if bias is None else bias.detach(),
        nonnegative=info.nonnegative,
        pixels=info.pixels,
        parts=tracer.parts,
    )
    with torch.no_grad():
        own = value is None or (bias is None and not operation.transposable)
        result = layer.net().total if own or value is None else value()
    layer.output = result
    pending = tracer.channels_of(source, layer)
    nonnegative = weight is None and bias is None and info.nonnegative and info.pixels is None
    return tracer.remember(result, Traced(nonnegative=nonnegative, pending=pending))


LINEAR = Operation(lambda a, w: F.linear(a, w), beside=(-1, 1), matrix=lambda w: w)
LINEAR_WITHOUT_BATCH = Operation(lambda a, w: F.linear(a, w))


def linear(
    tracer: RelevanceTracer, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """F.linear."""
    operation = LINEAR if input.dim() > 1 else LINEAR_WITHOUT_BATCH
    return apply_linear(tracer, func, input, operation, weight, bias, lambda: func(input, weight, bias))


def matrix_product(tracer: RelevanceTracer, func: Any, input: Tensor, other: Tensor, **kwargs: Any) -> Tensor:
    """X @ W and W @ x."""
    if func is torch.Tensor.__rmatmul__:
        input, other = other, input
    value = lambda: torch.matmul(input, other)  # noqa: E731
    if tracer.info(input) is None:
        return apply_linear(tracer, func, other, Operation(lambda a, w: torch.matmul(w, a)), input, None, value)
    if input.dim() < 2 or other.dim() != 2:
        return apply_linear(tracer, func, input, Operation(lambda a, w: torch.matmul(a, w)), other, None, value)
    return apply_linear(tracer, func, input, MATRIX_PRODUCT, other, None, value)


MATRIX_PRODUCT = Operation(lambda a, w: a @ w, beside=(-1, 0), matrix=lambda w: w.mT)


def add_matrix_product(
    tracer: RelevanceTracer, func: Any, input: Tensor, mat1: Tensor, mat2: Tensor, **kwargs: Any
) -> Tensor:
    """torch.addmm(bias, x, W)."""
    if kwargs:
        tracer.refuse(func, "Its factors alpha and beta have no rule.")
    return apply_linear(tracer, func, mat1, MATRIX_PRODUCT, mat2, input, lambda: func(input, mat1, mat2))


def einsum(tracer: RelevanceTracer, func: Any, equation: str, *operands: Any) -> Tensor:
    """torch.einsum of one traced tensor and at most one constant."""
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    traced = [tracer.info(operand) is not None for operand in operands]
    if len(operands) > 2 or sum(traced) != 1:
        tracer.refuse(func, "It may have one operand that depends on the input, and one constant.")
    first = traced[0]
    source = operands[0] if first else operands[1]
    weight = None if len(operands) == 1 else operands[1] if first else operands[0]

    def apply(a: Tensor, w: Tensor | None) -> Tensor:
        if w is None:
            return torch.einsum(equation, a)
        return torch.einsum(equation, a, w) if first else torch.einsum(equation, w, a)

    return apply_linear(tracer, func, source, Operation(apply), weight, None, lambda: func(equation, *operands))


def convolve(
    tracer: RelevanceTracer,
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Convolutions and transposed convolutions of any dimension."""
    shaped = None if bias is None else bias.reshape(-1, *[1] * (weight.dim() - 2))
    return apply_linear(
        tracer,
        func,
        input,
        _convolution(func, input, weight, *args, **kwargs),
        weight,
        shaped,
        lambda: func(input, weight, bias, *args, **kwargs),
    )


_PLAIN_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d}


def _convolution(func: Any, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Operation:
    """The convolution, with its transpose where padding is the same on both sides."""

    def apply(a: Tensor, w: Tensor) -> Tensor:
        return func(a, w, None, *args, **kwargs)

    names = ("stride", "padding", "dilation", "groups")
    given = {
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        **dict(zip(names, args, strict=False)),
        **kwargs,
    }
    dimensions = weight.dim() - 2
    stride, dilation = (
        [value] * dimensions if isinstance(value, int) else list(value)
        for value in (given["stride"], given["dilation"])
    )
    padding = given["padding"]
    if padding == "same":
        around = [d * (size - 1) for d, size in zip(dilation, weight.shape[2:], strict=True)]
        padding = [total // 2 for total in around] if all(total % 2 == 0 for total in around) else None
    elif padding == "valid":
        padding = [0] * dimensions
    elif isinstance(padding, int):
        padding = [padding] * dimensions
    if func not in _PLAIN_CONVOLUTIONS or padding is None or input.dim() != weight.dim():
        return Operation(apply)

    def transpose(factors: Tensor, w: Tensor, shape: torch.Size) -> Tensor:
        like = factors.new_empty(1).expand(shape)  # its values are not looked at
        return torch.ops.aten.convolution_backward(
            factors, like, w, None, stride, padding, dilation, False, [0] * dimensions, given["groups"],
            [True, False, False],
        )[0]  # fmt: skip

    return Operation(apply, transpose, beside=(1, 1) if given["groups"] == 1 else None)


def total(tracer: RelevanceTracer, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Sums, means and average pooling: all weights are the same, and positive."""
    return apply_linear(tracer, func, input, Operation(lambda a, _: func(a, *args, **kwargs)))


IDENTITY = Operation(lambda a, _: a, lambda factors, _, shape: factors)


def identity_term(tracer: RelevanceTracer, tensor: Tensor) -> PendingSum:
    """A tensor as a term of a sum, with weight one."""
    info = tracer.info(tensor) or Traced()
    source = tracer.close(tensor)
    value = source.detach()
    layer = LinearMap(value, IDENTITY, None, None, info.nonnegative, info.pixels, tracer.parts, output=value)
    return tracer.channels_of(source, layer)
