"""The kinds of operation that are linear in what is made of the input."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.linear import LinearMap
from rnnx_lightning.explain.rules import Epsilon, Gamma
from rnnx_lightning.explain.tracing import RelevanceTracer, Traced


def apply_linear(
    tracer: RelevanceTracer,
    func: Any,
    source: Tensor,
    operation: Callable[[Tensor, Any], Tensor],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    value: Callable[[], Tensor] | None = None,
) -> Tensor:
    """One call of a linear operation, as a pending sum.

    Args:
        tracer: the tracer.
        func: the operation, for messages.
        source: what is made of the input.
        operation: linear in its two arguments, without bias.
        weight: the constant factor; None where there is none and all weights are >= 0.
        bias: broadcastable to the output.
        value: gives the output as the network itself computes it; None: as `operation` and `bias` do.
    """
    advice = "Only one of its factors may depend on the input."
    info = tracer.known(source, func, advice)
    if any(tracer.info(constant) is not None for constant in (weight, bias)):
        tracer.refuse(func, advice)
    layer = LinearMap(
        source=tracer.close(source),
        apply=operation,
        weight=weight,
        bias=None if bias is None else bias.detach(),
        nonnegative=info.nonnegative,
        pixels=info.pixels,
        parts=tracer.parts,
    )
    pending = tracer.channels_of(layer)
    rule = tracer.composite.rule(tracer.path, reads_pixels=info.pixels is not None)
    if isinstance(rule, Epsilon | Gamma) and layer.bias is None:
        result = layer.net().detach()  # the rule's own sum is the value: computed once
    else:
        with torch.no_grad():
            result = value() if value is not None else layer.net().detach()
    nonnegative = weight is None and bias is None and info.nonnegative and info.pixels is None
    return tracer.remember(result, Traced(nonnegative=nonnegative, pending=pending))


def linear(
    tracer: RelevanceTracer, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """F.linear."""
    return apply_linear(
        tracer, func, input, lambda a, w: F.linear(a, w), weight, bias, lambda: func(input, weight, bias)
    )


def matrix_product(tracer: RelevanceTracer, func: Any, input: Tensor, other: Tensor, **kwargs: Any) -> Tensor:
    """X @ W and W @ x."""
    if func is torch.Tensor.__rmatmul__:
        input, other = other, input
    if tracer.info(input) is not None:
        return apply_linear(
            tracer, func, input, lambda a, w: torch.matmul(a, w), other, None, lambda: torch.matmul(input, other)
        )
    return apply_linear(
        tracer, func, other, lambda a, w: torch.matmul(w, a), input, None, lambda: torch.matmul(input, other)
    )


def add_matrix_product(
    tracer: RelevanceTracer, func: Any, input: Tensor, mat1: Tensor, mat2: Tensor, **kwargs: Any
) -> Tensor:
    """torch.addmm(bias, x, W)."""
    if kwargs:
        tracer.refuse(func, "Its factors alpha and beta have no rule.")
    return apply_linear(tracer, func, mat1, lambda a, w: a @ w, mat2, input, lambda: func(input, mat1, mat2))


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

    def operation(a: Tensor, w: Tensor | None) -> Tensor:
        if w is None:
            return torch.einsum(equation, a)
        return torch.einsum(equation, a, w) if first else torch.einsum(equation, w, a)

    return apply_linear(tracer, func, source, operation, weight, None, lambda: func(equation, *operands))


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
        lambda a, w: func(a, w, None, *args, **kwargs),
        weight,
        shaped,
        lambda: func(input, weight, bias, *args, **kwargs),
    )


def total(tracer: RelevanceTracer, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Sums, means and average pooling: all weights are the same, and positive."""
    return apply_linear(
        tracer,
        func,
        input,
        lambda a, _: func(a, *args, **kwargs),
        value=lambda: func(input, *args, **kwargs),
    )


def identity_term(tracer: RelevanceTracer, tensor: Tensor) -> LinearMap:
    """A tensor as a term of a sum, with weight one."""
    info = tracer.info(tensor) or Traced()
    return LinearMap(
        source=tracer.close(tensor),
        apply=lambda a, _: a,
        weight=None,
        bias=None,
        nonnegative=info.nonnegative,
        pixels=info.pixels,
        parts=tracer.parts,
    )
