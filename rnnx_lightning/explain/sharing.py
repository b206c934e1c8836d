"""How the relevance of a unit is shared among the sums that it is made of."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _ratio(relevance: Tensor, total: Tensor) -> Tensor:
    """Relevance / total, and 0 where there is nothing to share among."""
    return torch.where(total == 0, 0.0, relevance / total)


@dataclass(frozen=True)
class Proportional:
    """All to one sum: R / n. With `epsilon`, R / (n + epsilon * sign(n)), sign(0) = 1.

    Attributes:
        epsilon: stabiliser >= 0; it absorbs relevance.
    """

    epsilon: float = 0.0

    def factors(self, relevance: Tensor, total: Tensor) -> tuple[Tensor]:
        """What each contribution to `total` is multiplied with to give its relevance."""
        if self.epsilon:
            total = torch.where(total >= 0, total + self.epsilon, total - self.epsilon)
        return (_ratio(relevance, total),)


@dataclass(frozen=True)
class TwoSided:
    """Alpha to the positive sum, -beta to the negative one; alpha - beta = 1.

    Where one of the two sums is empty its quotient is 0 / 0, and the other takes the relevance whole, so that
    relevance is conserved.
    """

    alpha: float
    beta: float

    def factors(self, relevance: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """What each positive and each negative contribution is multiplied with to give its relevance."""
        alpha = torch.where(negative == 0, 1.0, self.alpha)
        beta = torch.where(positive == 0, -1.0, self.beta)
        return _ratio(relevance * alpha, positive), _ratio(relevance * -beta, negative)


Sharing = Proportional | TwoSided


class Close(torch.autograd.Function):
    """A unit made of channels: its value goes forward; backward, its relevance is shared among them."""

    @staticmethod
    def forward(ctx: Any, sharing: Sharing, value: Tensor, *channels: Tensor) -> Tensor:
        """`value` as it is; `channels` are the sums that the relevance goes to."""
        ctx.sharing = sharing
        ctx.save_for_backward(*channels)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        """The factor of each channel."""
        return None, None, *ctx.sharing.factors(relevance, *ctx.saved_tensors)


class Contribution(torch.autograd.Function):
    """An input's part in a sum: `value` goes forward; backward, the factor that arrives times `value`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        """`value`, as part of the graph of `source`."""
        ctx.save_for_backward(value)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None]:
        """The relevance of `source`."""
        (value,) = ctx.saved_tensors
        return value * factor, None


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
