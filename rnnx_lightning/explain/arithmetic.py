"""Sums, products and differences, element by element."""

from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.linear import LinearMap
from rnnx_lightning.explain.linear_operations import IDENTITY, identity_term
from rnnx_lightning.explain.rules import Epsilon
from rnnx_lightning.explain.terms import Terms, contribute
from rnnx_lightning.explain.tracing import Once, PendingSum, RelevanceTracer, Traced, UnexplainableError

Operand = Any  # a tensor or a number


def add(tracer: RelevanceTracer, func: Any, one: Operand, two: Operand, *, alpha: float = 1) -> Tensor:
    """A sum: a linear map whose weights are one, together with the linear maps that its terms are."""
    if alpha != 1:
        tracer.refuse(func, "Its factor alpha has no rule.")
    with torch.no_grad():
        value = torch.add(one, two)
    if tracer.info(one) is not None and tracer.info(two) is not None:
        return _sum_of_traced(tracer, value, one, two)
    traced, constant = (one, two) if tracer.info(one) is not None else (two, one)
    return _plus_constant(tracer, value, traced, constant)


def subtract(tracer: RelevanceTracer, func: Any, one: Operand, two: Operand, *, alpha: float = 1) -> Tensor:
    """A difference: minus a constant, or a constant minus a gate, or the sum with what is negated."""
    if alpha != 1:
        tracer.refuse(func, "Its factor alpha has no rule.")
    if tracer.info(two) is None:
        return add(tracer, func, one, -two)
    with torch.no_grad():
        value = torch.sub(one, two)
    gate = tracer.info(two)
    if gate is not None and gate.gate and tracer.info(one) is None:
        return _plus_constant(tracer, value, two, one, sign=-1)
    return add(tracer, func, one, negate(tracer, torch.neg, two))


def reverse_subtract(tracer: RelevanceTracer, func: Any, one: Operand, two: Operand, **kwargs: Any) -> Tensor:
    """Two - one."""
    return subtract(tracer, func, two, one, **kwargs)


def multiply(tracer: RelevanceTracer, func: Any, one: Operand, two: Operand) -> Tensor:
    """A gated signal, or a tensor scaled by a constant."""
    first, second = tracer.info(one), tracer.info(two)
    with torch.no_grad():
        value = torch.mul(one, two)
    if first is None or second is None:
        traced, constant = (two, one) if first is None else (one, two)
        return _scaled(tracer, value, traced, constant)
    if first.gate == second.gate:
        what = "two gates" if first.gate else "two signals, neither of which is a gate (a sigmoid's output)"
        tracer.refuse(func, f"It multiplies {what}: which of them the relevance belongs to is not known.")
    signal, gate, known = (two, one, first) if first.gate else (one, two, second)
    return _scaled(tracer, value, signal, gate.detach(), nonnegative=known.nonnegative)


def divide(tracer: RelevanceTracer, func: Any, one: Operand, two: Operand, **kwargs: Any) -> Tensor:
    """A tensor divided by a constant."""
    if kwargs or tracer.info(two) is not None:
        tracer.refuse(func, "Only division by a constant has a rule.")
    return multiply(tracer, func, one, 1 / two)


def negate(tracer: RelevanceTracer, func: Any, tensor: Tensor) -> Tensor:
    """Times minus one."""
    return multiply(tracer, func, tensor, -1.0)


def _as_pending(tracer: RelevanceTracer, tensor: Tensor) -> PendingSum:
    info = tracer.info(tensor)
    if info is not None and info.pending is not None:
        return info.pending
    return identity_term(tracer, tensor)


def _expanded(terms: Terms, tensor: Tensor, value: Tensor) -> Terms:
    """The terms of `tensor`, of the shape of `value`, the sum that it is broadcast in."""
    return terms if tensor.shape == value.shape else terms.mapped(lambda part: part.expand(value.shape))


def _sum_of_traced(tracer: RelevanceTracer, value: Tensor, one: Tensor, two: Tensor) -> Tensor:
    first, second = (_as_pending(tracer, tensor) for tensor in (one, two))
    rule = tracer.common_rule(first.rule, second.rule)
    parts = [_expanded(part.terms, t, value) for part, t in ((first, one), (second, two))]
    both = Terms(lambda active_only: [*parts[0](active_only), *parts[1](active_only)])
    infos = (tracer.info(one), tracer.info(two))
    nonnegative = all(info is not None and info.nonnegative and info.pixels is None for info in infos)
    return tracer.remember(value, Traced(nonnegative, pending=PendingSum(rule, both)))


def _plus_constant(
    tracer: RelevanceTracer, value: Tensor, tensor: Tensor, constant: Operand, sign: int = 1
) -> Tensor:
    """Sign * tensor + constant; sign is -1 for gates alone."""
    info = tracer.known(tensor, torch.add, "")
    if info.gate:
        # 1 - gate stays a gate; its relevance, if anybody asks for it, is the gate's own.
        in_range = isinstance(constant, int | float) and (constant >= 0 if sign > 0 else constant >= 1)
        plain = value
        graph = Once(lambda: tracer.passed(tensor, plain))
        return tracer.remember(value, Traced(info.nonnegative and in_range, gate=True, graph=graph))
    if info.pixels is not None and info.pending is None:
        # Scaled and shifted pixels are pixels still: a normalisation takes no relevance.
        pixels = info.pixels.affine(1.0, constant if isinstance(constant, Tensor) else float(constant))
        return tracer.remember(tracer.passed(tensor, value), Traced(pixels=pixels))
    pending = _as_pending(tracer, tensor)
    like = value.detach()
    bias = torch.as_tensor(constant, dtype=like.dtype, device=like.device).detach()
    alone = LinearMap(None, IDENTITY, None, bias, False, None, tracer.parts)
    # Exact for all units: one may be active by the constant alone, which some rules do not count.
    others = _expanded(pending.terms, tensor, value)
    own = _expanded(Terms(lambda _: [contribute(None, pending.rule.channels(alone))]), bias, value)
    terms = Terms(lambda _: [*others(), *own()])
    return tracer.remember(value, Traced(pending=PendingSum(pending.rule, terms)))


def _scaled(
    tracer: RelevanceTracer, value: Tensor, tensor: Tensor, factor: Operand, nonnegative: bool | None = None
) -> Tensor:
    """Tensor * factor; the factor gets no relevance."""
    info = tracer.known(tensor, torch.mul, "")
    if nonnegative is None:
        nonnegative = bool((factor >= 0).all()) if isinstance(factor, Tensor) else factor >= 0
    if info.gate:
        plain = value
        graph = Once(lambda: tracer.passed(tensor, plain))
        return tracer.remember(value, Traced(nonnegative, gate=True, graph=graph))
    if info.pending is not None:
        if not nonnegative and not isinstance(info.pending.rule, Epsilon):
            raise UnexplainableError(
                f"A sum of linear maps{tracer.path} is multiplied by something negative, which swaps its positive "
                "and negative contributions. Put the sign into the weights."
            )
        pending = info.pending
        terms = pending.terms.together().mapped(lambda part: part * factor)
        return tracer.remember(
            value, Traced(info.nonnegative and nonnegative, pending=PendingSum(pending.rule, terms))
        )
    pixels = None
    if info.pixels is not None:
        pixels = info.pixels.affine(factor if isinstance(factor, Tensor) else float(factor), 0.0)
    return tracer.remember(tracer.passed(tensor, value), Traced(info.nonnegative and nonnegative, pixels))
