"""How the relevance of a unit is shared among the sums that it is made of, and of each sum among the inputs.

Buffers of this file's own are changed in place: for large feature maps new memory costs more than arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.linear import Channel, Product

Sum = Sequence[Tensor | None]  # its terms; None for one without contributions


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

    def factors(self, relevance: Tensor, sums: list[Sum], value: Tensor | None) -> tuple[Tensor]:
        """What each contribution to the sum is multiplied with to give its relevance."""
        if value is not None:
            return (_divided(relevance, value + self.epsilon) if self.epsilon else _ratio(relevance, value),)
        total = added(sums[0])
        assert total is not None  # only negative contributions can be absent
        if self.epsilon:
            epsilon = torch.tensor(self.epsilon, dtype=total.dtype, device=total.device)
            return (_divided(relevance, torch.copysign(epsilon, total).add_(total)),)
        if self.signed:
            return (_divided(relevance, total.masked_fill(total == 0, math.inf)),)
        return (_ratio(relevance, total, own=len(sums[0]) > 1),)


@dataclass(frozen=True)
class TwoSided:
    """Alpha to the positive contributions, -beta to the negative ones; alpha - beta = 1.

    Where one of the two sums is empty its quotient is 0 / 0, and the other takes the relevance whole, so that
    relevance is conserved.
    """

    alpha: float
    beta: float
    signed = False

    def factors(self, relevance: Tensor, sums: list[Sum], value: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What each contribution to the two sums, of magnitudes both, is multiplied with."""
        negative = added(sums[1])
        positive = added(sums[0]) if value is None else value if negative is None else value + negative
        assert positive is not None  # only negative contributions can be absent
        if negative is None:
            return _ratio(relevance, positive), None
        below = F.threshold(negative, 0.0, math.inf)
        above = F.threshold(positive, 0.0, math.inf, inplace=value is not None)  # then in memory of its own
        if value is not None:  # a unit that is active has something positive
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


class Term(NamedTuple):
    """One term of a sum of linear maps.

    Attributes:
        sums: of contributions, one a channel; None for a channel without contributions.
        by_value: the value is the first channel's sum less the second's, and the first one's may be left out.
    """

    sums: tuple[Tensor | None, ...]
    by_value: bool


def close(sharing: Sharing, value: Tensor, terms: Sequence[Term], active: bool = False) -> Tensor:
    """A unit made of terms, with its graph.

    Args:
        sharing: how its relevance is shared among the channels.
        value: its value.
        terms: what it is made of.
        active: `value` has gone through ReLU, and where that is 0 there is no relevance.
    """
    by_value = active and all(term.by_value for term in terms)
    return Close.apply(sharing, by_value, value, len(terms), *(total for term in terms for total in term.sums))


class Close(torch.autograd.Function):
    """A unit made of terms: its value goes forward; backward, its relevance is shared among them."""

    @staticmethod
    def forward(
        ctx: Any, sharing: Sharing, by_value: bool, value: Tensor, terms: int, *sums: Tensor | None
    ) -> Tensor:
        """`value` as it is; `sums` are those of the first term, those of the second, ..."""
        ctx.sharing, ctx.terms = sharing, terms
        ctx.save_for_backward(value if by_value else None, *sums)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        """The factor of each sum."""
        value, *sums = ctx.saved_tensors
        channels = len(sums) // ctx.terms
        factors = ctx.sharing.factors(relevance, [sums[k::channels] for k in range(channels)], value)
        wanted = zip(factors * ctx.terms, ctx.needs_input_grad[4:], strict=True)
        return None, None, None, None, *(factor if needed else None for factor, needed in wanted)


def contribute(source: Tensor | None, channels: Sequence[Channel | None]) -> Term:
    """The contributions of `source` to a unit, with their graph; None for a constant, which gets no relevance."""
    present = [channel for channel in channels if channel is not None]
    totals = (channel.total for channel in present) if source is None else iter(Contribute.apply(source, *present))
    return Term(
        tuple(None if channel is None else next(totals) for channel in channels),
        all(channel.by_value for channel in present),
    )


class Contribute(torch.autograd.Function):
    """An input's contributions to the channels of a unit; backward, times the channels' factors: its relevance."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, *channels: Channel) -> tuple[Tensor, ...]:
        """The channels' sums, as part of the graph of `source`."""
        ctx.products = [channel.products for channel in channels]
        ctx.set_materialize_grads(False)
        return tuple(channel.total.view_as(channel.total) for channel in channels)

    @staticmethod
    def backward(ctx: Any, *factors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The relevance of `source`."""
        parts: dict[int, tuple[Product, Tensor]] = {}  # by the value that they are multiplied with
        for products, factor in zip(ctx.products, factors, strict=True):
            for product in products if factor is not None else ():
                key = id(product.value)
                before = parts[key][1] if key in parts else None
                parts[key] = product, product.transposed(factor, before)
        relevance = None
        for product, part in parts.values():
            own = product.folded(_times(part, product.value, factors))
            relevance = own if relevance is None else relevance + own
        return relevance, *(None for _ in factors)


def _times(part: Tensor, value: Tensor, borrowed: tuple[Tensor | None, ...]) -> Tensor:
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
