"""How the relevance of a unit is shared among the sums that it is made of, and of each sum among the inputs.

Buffers of this file's own are changed in place: for large feature maps new memory costs more than arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.linear import Channel, Product

Sum = Sequence[Tensor | None]  # its terms; None for one without contributions
Products = Sequence[Sequence[Product]]  # one sequence a channel


def added(terms: Sum) -> Tensor | None:
    """The sum of the terms that there are."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], start=present[0]) if present else None


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
        if net is not None:  # a unit that is active has something positive
            down = torch.addcdiv(relevance.new_zeros(()), relevance, below, value=-self.beta)
        else:
            # 1 where there is something, else 0 / inf = 0; `sign` takes four times as long.
            is_above = positive / above
            down = _divided(relevance, below)
            down.addcmul_(down, is_above, value=-self.beta - 1)  # all of it where there is nothing positive
        # What the negative contributions did not get: alpha R where there are any, else R.
        up = _divided(torch.addcmul(relevance, negative, down, value=-1), above)
        return up, down


Sharing = Proportional | TwoSided


class Term(Protocol):
    """One term of a sum of linear maps."""

    @property
    def by_value(self) -> bool:
        """Its value is the first channel's sum less the second's, and the first one's may be left out."""
        ...

    @property
    def totals(self) -> Sum:
        """The sums of contributions, one a channel; None for a channel without any."""
        ...

    @property
    def inputs(self) -> Sum:
        """What it is made of in the graph."""
        ...

    @property
    def products(self) -> Products | None:
        """What the contributions of the one input are, one list a channel; None where the sums are the inputs."""
        ...

    def separate(self) -> "Sums":
        """The same with a graph of the sums' own, so that they can be scaled and moved."""
        ...


class Sums(NamedTuple):
    """A term given by sums that are part of the graph: their gradients are the factors."""

    totals: Sum
    by_value: bool
    products: None = None

    @property
    def inputs(self) -> Sum:
        """The sums."""
        return self.totals

    def separate(self) -> "Sums":
        """Itself."""
        return self


class Contribution:
    """A term given by its input, whose gradient is its relevance.

    Args:
        source: the input.
        channels: what it contributes; None for a channel without contributions.
    """

    def __init__(self, source: Tensor, channels: Sequence[Channel | None]) -> None:
        self.inputs = (source,)
        self.totals = tuple(None if channel is None else channel.total for channel in channels)
        self.products = [[] if channel is None else channel.products for channel in channels]
        self.by_value = all(channel.by_value for channel in channels if channel is not None)
        self._separate: Sums | None = None

    def separate(self) -> Sums:
        """The sums with their graph, the same ones each time."""
        if self._separate is None:
            totals = Separate.apply(self.products, *self.inputs, *self.totals)
            self._separate = Sums(totals, self.by_value)
        return self._separate


def contribute(source: Tensor | None, channels: Sequence[Channel | None]) -> Term:
    """What `source` contributes to a unit; None for a constant, which gets no relevance."""
    if source is not None:
        return Contribution(source, channels)
    totals = tuple(None if channel is None else channel.total for channel in channels)
    return Sums(totals, all(channel.by_value for channel in channels if channel is not None))


class Separate(torch.autograd.Function):
    """An input's contributions as sums with a graph; backward, from their factors to the input's relevance."""

    @staticmethod
    def forward(ctx: Any, products: Products, source: Tensor, *totals: Tensor | None) -> Sum:
        """The sums."""
        ctx.products = products  # not the sums: nobody may need them any more
        ctx.set_materialize_grads(False)
        return tuple(None if total is None else total.view_as(total) for total in totals)

    @staticmethod
    def backward(ctx: Any, *factors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The relevance of the source."""
        return None, _relevance(ctx.products, factors), *(None for _ in factors)


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
                gradients.append(_relevance(products, factors))
        return None, None, None, None, None, None, *gradients


def _relevance(channels: Products, factors: Sum) -> Tensor | None:
    """The relevance of an input: the products of each channel, transposed, with the channel's factor."""
    parts: dict[int, tuple[Product, Tensor]] = {}  # by the value that they are multiplied with
    for products, factor in zip(channels, factors, strict=True):
        if factor is None:
            continue
        for product in products:
            key = id(product.value)
            before = parts[key][1] if key in parts else None
            parts[key] = product, product.transposed(factor, before)
    relevance = None
    for product, part in parts.values():
        own = product.folded(_times(part, product.value, factors))
        relevance = own if relevance is None else relevance + own
    return relevance


def _times(part: Tensor, value: Tensor, borrowed: Sum) -> Tensor:
    """Part * value, in place if the memory of `part` is its own."""
    memory = part.untyped_storage()
    own = all(factor is None or factor.untyped_storage().data_ptr() != memory.data_ptr() for factor in borrowed)
    whole = memory.nbytes() == part.numel() * part.element_size()  # not expanded, no view of a larger one
    return part.mul_(value) if own and whole and part.dtype == value.dtype else part * value


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
