"""How the relevance of a unit is shared among its contributions: one factor a channel.

A contribution times the factor of its channel is its relevance.
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
    """The totals of a unit. Each one is computed when it is asked for."""

    @property
    def active(self) -> bool:
        """There is relevance only where the unit's net input is positive: ReLU follows."""
        ...

    @property
    def net(self) -> Tensor:
        """The sum of all contributions, and of the constant."""
        ...

    @property
    def positive(self) -> Tensor:
        """The sum of the positive ones, and of a positive constant."""
        ...

    @property
    def negative(self) -> Tensor | None:
        """The magnitude of the sum of the negative ones, without the constant; None where there is none."""
        ...

    @property
    def constant(self) -> Tensor | None:
        """The constant; None where there is none."""
        ...

    @property
    def by_value(self) -> bool:
        """The positive sum is the net input plus the negative sum."""
        ...


class Sharing(ABC):
    """How relevance is shared; terms of one sum must agree in it.

    Factors must be linear in relevance: twice the relevance, twice the factors. A recurrent layer computes them
    once for all steps, from relevance 1.
    """

    signed: ClassVar[bool] = False
    real_scale: ClassVar[bool] = False  # totals are needed as they are, not each in a scale of its own

    @abstractmethod
    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """What the contributions of each channel are multiplied with to give their relevance."""


def _divided(relevance: Tensor, total: Tensor, own: bool = False) -> Tensor:
    """Relevance / total; overwrites `total` if that is its own memory."""
    if own and not torch.is_grad_enabled() and total.shape == relevance.shape and total.dtype == relevance.dtype:
        return torch.div(relevance, total, out=total)
    return relevance / total


def _or_infinity(total: Tensor) -> Tensor:
    """Totals >= 0; infinity where they are nothing, or so little that a quotient by them would overflow."""
    return F.threshold(total, torch.finfo(total.dtype).tiny ** 0.8, math.inf)


def ratio(relevance: Tensor, total: Tensor) -> Tensor:
    """Relevance / total for totals >= 0, and 0 where there is nothing to share among."""
    return _divided(relevance, _or_infinity(total), own=True)


@dataclass(frozen=True)
class Proportional(Sharing):
    """All to the positive contributions."""

    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """R / z+."""
        return {Channel.POSITIVE: ratio(relevance, unit.positive)}


@dataclass(frozen=True)
class Signed(Sharing):
    """To all contributions as they are, those with the sign of their sum once more `gamma` times.

    Attributes:
        epsilon: stabiliser >= 0; it absorbs relevance.
        gamma: how much the contributions with the sign of the sum are favoured.
    """

    epsilon: float = 0.0
    gamma: float = 0.0
    signed = True
    real_scale = True

    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """R / (z + epsilon sign(z)), where z counts what is favoured 1 + gamma times."""
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
        if self.epsilon:
            if active:
                return _divided(relevance, total + self.epsilon, own=True)
            epsilon = total.new_full((), self.epsilon)  # made on the device
            return _divided(relevance, torch.copysign(epsilon, total) + total, own=True)
        if active:
            return ratio(relevance, total)
        return _divided(relevance, total.masked_fill(total == 0, math.inf), own=True)


@dataclass(frozen=True)
class TwoSided(Sharing):
    """Alpha to the positive contributions, -beta to the negative ones; alpha - beta = 1.

    Where one of the two sums is empty its quotient is 0 / 0, and the other takes the relevance whole, so that
    relevance is conserved.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def factors(self, relevance: Tensor, unit: Unit) -> Factors:
        """What each contribution to the two sums, of magnitudes both, is multiplied with."""
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
