"""How the relevance of a unit is shared among the sums of contributions that it is made of.

Buffers of this file's own are changed in place: for large feature maps new memory costs more than arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.terms import Products, Sum, Term, added, relevance_of_input


def _divided(relevance: Tensor, total: Tensor) -> Tensor:
    """Relevance / total; overwrites `total` where it can."""
    if total.shape == relevance.shape and total.dtype == relevance.dtype:
        return torch.div(relevance, total, out=total)
    return relevance / total


def _ratio(relevance: Tensor, total: Tensor, own: bool = False) -> Tensor:
    """Relevance / total for totals >= 0, and 0 where there is nothing to share among; `own` is overwritten."""
    return _divided(relevance, F.threshold(total, 0.0, math.inf, inplace=own))


@dataclass(frozen=True)
class Proportional:
    """All to one sum: R / n. With `epsilon`, R / (n + epsilon * sign(n)).

    Attributes:
        epsilon: stabiliser >= 0; it absorbs relevance.
        signed: the sum can be negative.
    """

    epsilon: float = 0.0
    signed: bool = field(default=False, compare=False)

    def factors(self, relevance: Tensor, sums: list[Sum], net: Tensor | None, active: bool) -> tuple[Tensor]:
        """What each contribution to the sum is multiplied with to give its relevance."""
        total = added(sums[0]) if net is None else net
        assert total is not None  # only negative contributions can be absent
        positive = not self.signed or (net is not None and active)
        if self.epsilon:
            if positive:
                return (_divided(relevance, total + self.epsilon),)
            epsilon = total.new_full((), self.epsilon)  # made on the device
            return (_divided(relevance, torch.copysign(epsilon, total).add_(total)),)
        if not positive:
            return (_divided(relevance, total.masked_fill(total == 0, math.inf)),)
        return (_ratio(relevance, total, own=net is None and len(sums[0]) > 1),)


@dataclass(frozen=True)
class TwoSided:
    """Alpha to the positive contributions, -beta to the negative ones; alpha - beta = 1.

    Where one of the two sums is empty its quotient is 0 / 0, and the other takes the relevance whole, so that
    relevance is conserved.
    """

    alpha: float
    beta: float
    signed = False

    def factors(
        self, relevance: Tensor, sums: list[Sum], net: Tensor | None, active: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What each contribution to the two sums, of magnitudes both, is multiplied with."""
        negative = added(sums[1])
        positive = added(sums[0]) if net is None else net
        assert positive is not None  # only negative contributions can be absent
        if negative is None:
            return _ratio(relevance, positive), None
        if net is not None:
            positive = net + negative
        below = F.threshold(negative, 0.0, math.inf)
        above = F.threshold(positive, 0.0, math.inf, inplace=net is not None)  # then in memory of its own
        down = _divided(relevance, below)
        if net is not None:  # a unit that is active has something positive
            down *= -self.beta
        else:
            # 1 where there is something, else 0 / inf = 0; `sign` takes four times as long.
            is_above = positive / above
            down.addcmul_(down, is_above, value=-self.beta - 1)  # all of it where there is nothing positive
        # What the negative contributions did not get: alpha R where there are any, else R.
        up = _divided(torch.addcmul(relevance, negative, down, value=-1), above)
        return up, down


Sharing = Proportional | TwoSided


def close(
    sharing: Sharing,
    value: Tensor,
    terms: Sequence[Term],
    net: Tensor,
    active: bool = False,
    apart: bool = False,
) -> Tensor:
    """A unit made of terms, with its graph.

    Args:
        sharing: how its relevance is shared among the channels.
        value: what goes forward.
        terms: what it is made of.
        net: what the terms add up to; with `active`, only where that is positive.
        active: there is relevance only where `net` is positive.
        apart: the sums get a graph of their own, which tells their factors.
    """
    if apart:
        terms = [term.separate() for term in terms]
    # Of units that are not active, two channels by value would cancel.
    by_net = (active or len(terms[0].totals) == 1) and all(term.by_value for term in terms)
    sums = list(zip(*(term.totals for term in terms), strict=True))
    products = [term.products for term in terms]
    inputs = [part for term in terms for part in term.inputs]
    return Close.apply(sharing, active, value, net if by_net else None, sums, products, *inputs)


class Close(torch.autograd.Function):
    """A unit made of terms: its value goes forward; backward, its relevance is shared among them."""

    @staticmethod
    def forward(
        ctx: Any,
        sharing: Sharing,
        active: bool,
        value: Tensor,
        net: Tensor | None,
        sums: list[Sum],
        products: list[Products | None],
        *inputs: Tensor | None,
    ) -> Tensor:
        """`value` as it is."""
        ctx.sharing, ctx.active, ctx.net, ctx.sums, ctx.products = sharing, active, net, sums, products
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        """The relevance of each input, or the factor where it is a sum."""
        factors = ctx.sharing.factors(relevance, ctx.sums, ctx.net, ctx.active)
        del ctx.sums, ctx.net  # what they leave in the caches is the best memory for what comes next
        needed = iter(ctx.needs_input_grad[6:])
        gradients: list[Tensor | None] = []
        for products in ctx.products:
            if products is None:
                gradients += [factor if next(needed) else None for factor in factors]
            else:
                next(needed)
                gradients.append(relevance_of_input(products, factors))
        return None, None, None, None, None, None, *gradients


class Pass(torch.autograd.Function):
    """An activation or a gated signal: `value` goes forward; backward, all relevance to `source`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        """`value`, as part of the graph of `source`."""
        ctx.shape = source.shape
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        """The relevance, summed where `source` was broadcast."""
        return relevance.sum_to_size(ctx.shape), None
