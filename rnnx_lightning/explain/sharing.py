"""How the relevance of a unit is divided among its contributions: by one factor per channel.

The relevance of a contribution is the contribution times the factor of its channel.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.channels import Channel

Factors = dict[Channel, Tensor]


class Unit(Protocol):
    """The totals of a unit. Each one is computed on first use."""

    @property
    def active(self) -> bool:
        """Whether relevance only comes to units with a positive net input, because ReLU follows."""
        ...

    @property
    def net(self) -> Tensor:
        """The sum of all contributions and the constant."""
        ...

    @property
    def positive(self) -> Tensor:
        """The sum of the positive contributions and a positive constant."""
        ...

    @property
    def negative(self) -> Tensor | None:
        """The magnitude of the sum of the negative contributions, without the constant; None if there are none."""
        ...

    @property
    def constant(self) -> Tensor | None:
        """The constant; None if there is none."""
        ...

    @property
    def by_value(self) -> bool:
        """Whether the positive sum can be computed as the net input plus the negative sum."""
        ...


class Sharing(ABC):
    """How relevance is divided among contributions. All terms of a sum need the same sharing.

    Factors must be linear in relevance: twice the relevance, twice the factors. A recurrent layer computes them
    once for all time steps, from relevance 1.

    Attributes:
        signed: negative relevance makes sense, so that relevance starts at the logit, whatever its sign.
        real_scale: totals are needed in their real scale, because they are compared with each other.
    """

    signed: ClassVar[bool] = False
    real_scale: ClassVar[bool] = False

    @abstractmethod
    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """The factors that turn the contributions of each channel into relevance."""


def _divided(relevance: Tensor, total: Tensor, own: bool = False) -> Tensor:
    """Relevance / total; overwrites `total` if it is marked as its `own` memory."""
    if own and not torch.is_grad_enabled() and total.shape == relevance.shape and total.dtype == relevance.dtype:
        return torch.div(relevance, total, out=total)
    return relevance / total


def least(dtype: torch.dtype) -> float:
    """Totals up to this one are so small that a division by them would overflow."""
    return float(torch.finfo(dtype).tiny ** 0.8)


def representable(number: float, dtype: torch.dtype) -> bool:
    """Whether a number > 0 is not 0 when it is rounded to a type: that of 1e-9 is 0 in half precision."""
    info = torch.finfo(dtype)
    return number > info.smallest_normal * info.eps / 2


def _or_infinity(total: Tensor) -> Tensor:
    """Totals >= 0, with infinity in place of 0 and of values that are too small to divide by."""
    return F.threshold(total, least(total.dtype), math.inf)


def ratio(relevance: Tensor, total: Tensor) -> Tensor:
    """Relevance / total for totals >= 0; 0 where the total is 0."""
    return _divided(relevance, _or_infinity(total), own=True)


@dataclass(frozen=True)
class Proportional(Sharing):
    """All relevance to the positive contributions."""

    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """R / z+."""
        return {Channel.POSITIVE: ratio(relevance, unit.positive)}


@dataclass(frozen=True)
class Signed(Sharing):
    """Relevance to all contributions; those with the sign of their sum count 1 + gamma times.

    Attributes:
        epsilon: stabiliser >= 0; it absorbs relevance.
        gamma: how much contributions with the sign of the sum are favoured.
    """

    epsilon: float = 0.0
    gamma: float = 0.0
    signed = True
    real_scale = True

    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """R / (z + epsilon sign(z)), where favoured contributions count 1 + gamma times in z."""
        total = unit.net
        if not self.gamma:
            return {Channel.NET: self._quotient(relevance, total, unit.active)}
        if unit.active:
            factor = ratio(relevance, total + self.gamma * unit.positive)
            return {Channel.NET: factor, Channel.POSITIVE: self.gamma * factor}
        above = total > 0
        up, down, constant = unit.positive, unit.negative, unit.constant
        down = torch.zeros_like(total) if down is None else down
        if constant is not None:
            down = down - constant.clamp(max=0)
        favoured = torch.where(above, up, -down)
        factor = self._quotient(relevance, total + self.gamma * favoured, unit.active)
        more = self.gamma * factor
        return {
            Channel.NET: factor,
            Channel.POSITIVE: torch.where(above, more, 0.0),
            Channel.NEGATIVE: torch.where(above, 0.0, -more),
        }

    def _quotient(self, relevance: Tensor, total: Tensor, active: bool) -> Tensor:
        if self.epsilon and representable(self.epsilon, total.dtype):
            if active:  # others have no relevance, but some have the total -epsilon
                return _divided(relevance, total.clamp(min=0) + self.epsilon, own=True)
            epsilon = total.new_full((), self.epsilon)  # on the device of the total
            return _divided(relevance, torch.copysign(epsilon, total) + total, own=True)
        if active:
            return ratio(relevance, total)
        return _divided(relevance, total.masked_fill(total.abs() <= least(total.dtype), math.inf), own=True)


@dataclass(frozen=True)
class TwoSided(Sharing):
    """Alpha times the relevance to positive contributions, -beta times to negative ones; alpha - beta = 1.

    If one of the two sums is empty, its quotient is 0 / 0, and the other contributions get all relevance, so that
    relevance is conserved.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """The factors of the two sums, both of magnitudes."""
        negative = unit.negative
        if negative is None:
            return {Channel.POSITIVE: ratio(relevance, unit.positive)}
        positive, by_value = unit.positive, unit.by_value and unit.active
        above = _or_infinity(positive)
        down = _divided(relevance, _or_infinity(negative), own=True)  # memory of its own
        kept = torch.is_grad_enabled()  # a graph needs it as it is
        if by_value:  # a unit that is active has something positive
            down = down * -self.beta if kept else down.mul_(-self.beta)
        else:
            # 1 where there is something, else 0 / inf = 0; `sign` takes four times as long.
            is_above = positive / above
            # All of it where there is nothing positive.
            gone = -self.beta - 1
            down = down.addcmul(down, is_above, value=gone) if kept else down.addcmul_(down, is_above, value=gone)
        # What the negative contributions did not get: alpha R where there are any, else R.
        up = _divided(torch.addcmul(relevance, negative, down, value=-1), above, own=True)
        return {Channel.POSITIVE: up, Channel.NEGATIVE: down}
