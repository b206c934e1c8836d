"""Rules of layer-wise relevance propagation: how a linear map shares the relevance of its outputs.

Each rule is a declaration: which products of inputs and weights count as contributions, and how relevance is
shared among them. A unit j with relevance R_j gives input i the share of i's contributions in the sum of all.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.linear import LinearMap, Product
from rnnx_lightning.explain.refusals import PixelRangeWarning
from rnnx_lightning.explain.sharing import Proportional, Sharing, Signed, TwoSided

PixelBound = float | Tensor | Literal["data"]

PROPORTIONAL = Proportional()


class Rule(ABC):
    """What the explainer asks of a rule.

    Attributes:
        zero_gets_nothing: an input that is 0 contributes nothing.
        plain: its contributions are a_i w_ij, which add up to the net input.
        adapts: in a sum, it takes the other terms' way of sharing. Such a rule does not count biases.
    """

    zero_gets_nothing: bool = True
    plain: bool = True
    adapts: bool = False

    @property
    @abstractmethod
    def sharing(self) -> Sharing:
        """How relevance is shared among the channels; linear maps that are summed must agree in it."""

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """The contributions of one channel, as products; none where the channel is empty."""
        return layer.plain(channel)

    def total(self, layer: LinearMap, channel: Channel) -> Tensor | None:
        """The sum of a channel, where there is a shorter way than summing its products."""
        return None

    def fitted(self, inputs: Tensor) -> "Rule":
        """The rule for these pixels; it may take its bounds from them, or warn where they do not fit."""
        return self


@dataclass(frozen=True)
class ZPlus(Rule):
    """z+ (alpha 1, beta 0): R_i = sum_j (a_i w_ij)+ / sum_i' (a_i' w_i'j)+ * R_j [BML+16, MLB+17].

    A positive bias takes its share of the relevance; a negative one counts for nothing.
    """

    sharing = PROPORTIONAL


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """R_i = sum_j (alpha (a_i w_ij)+ / z+_j - beta (a_i w_ij)- / z-_j) R_j, alpha - beta = 1 [BML+16].

    A positive bias is part of z+; a negative one counts for nothing. Where z+_j or z-_j has no contribution at
    all, the other takes R_j whole.

    Attributes:
        alpha: weight of the positive contributions, >= 1.
        beta: weight of the negative contributions, >= 0.

    Raises:
        ValueError: alpha - beta is not 1, or beta is negative.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.beta < 0:
            raise ValueError(f"alpha={self.alpha}, beta={self.beta}: alpha - beta must be 1 and beta >= 0")

    @cached_property
    def sharing(self) -> Sharing:
        """Two-sided, or proportional where beta is 0."""
        return TwoSided(self.alpha, self.beta) if self.beta else PROPORTIONAL


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = sum_j a_i w_ij / (z_j + epsilon sign(z_j)) R_j [BML+16]; the bias takes its share.

    Attributes:
        epsilon: stabiliser >= 0.
    """

    epsilon: float = 1e-6

    @cached_property
    def sharing(self) -> Sharing:
        """As the contributions are, stabilised."""
        return Signed(self.epsilon)


@dataclass(frozen=True)
class Gamma(Rule):
    """R_i = sum_j (a_i w_ij + gamma (a_i w_ij)+) / sum_i' (...) R_j [Montavon et al., 2019].

    Where the net input is negative, the negative contributions are favoured instead, as for signed units.

    Attributes:
        gamma: how much contributions with the sign of the net input are favoured, >= 0.
    """

    gamma: float = 0.25

    @cached_property
    def sharing(self) -> Sharing:
        """As the contributions are, one sign favoured."""
        return Signed(0.0, self.gamma)


@dataclass(frozen=True)
class ZBox(Rule):
    """z^B for inputs in [low, high]: contributions x_i w_ij - low w+_ij - high w-_ij [MLB+17]; no bias.

    They are (x_i - low) w+_ij + (x_i - high) w-_ij, all of them positive.

    Attributes:
        low: the least value that an input can have; a number, a tensor that broadcasts to the input (a bound a
            channel), or "data": the least that the explained inputs have. Left out, it is -1, or
            "data" if `high` is.
        high: the greatest. Left out, it is 1, or "data" if `low` is.

    Raises:
        ValueError: low is not below high.
    """

    low: PixelBound | None = None
    high: PixelBound | None = None
    sharing = PROPORTIONAL
    zero_gets_nothing = False
    plain = False
    adapts = True

    def __post_init__(self) -> None:
        for name, other, default in (("low", self.high, -1.0), ("high", self.low, 1.0)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, "data" if isinstance(other, str) else default)
        low, high = self._bounds
        if isinstance(low, str) or isinstance(high, str):
            if wrong := {bound for bound in (low, high) if isinstance(bound, str)} - {"data"}:
                raise ValueError(f'a bound is a number, a tensor or "data", got {wrong.pop()!r}')
        elif not bool(torch.as_tensor(low < high).all()):
            raise ValueError(f"low={low} must be below high={high}")

    def fitted(self, inputs: Tensor) -> "ZBox":
        """With the bounds that the inputs have where they are asked for; warns of inputs outside of the box."""
        least, greatest = (float(bound) for bound in torch.aminmax(inputs.detach()))
        asked_low, asked_high = self._bounds
        low = least if isinstance(asked_low, str) else asked_low
        high = greatest if isinstance(asked_high, str) else asked_high
        if isinstance(asked_high, str) and not bool(torch.as_tensor(low < high).all()):
            high = low + 1  # all inputs are equal
        outside = (inputs < low) | (inputs > high)
        if bool(outside.any()):
            warnings.warn(
                f"{int(outside.sum())} of {inputs.numel()} inputs lie outside of the box [{low}, {high}] that z^B "
                f"was told: they were seen from {least:g} to {greatest:g}, and their relevance may be wrong. Give "
                'these bounds, or low="data" and high="data".',
                PixelRangeWarning,
                stacklevel=2,
            )
        return ZBox(low, high)

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """Those above."""
        low, high = self._numbers
        return layer.boxed(channel, low, high)

    def total(self, layer: LinearMap, channel: Channel) -> Tensor | None:
        """From the net input, where ReLU follows."""
        if channel is Channel.NEGATIVE:
            return None
        low, high = self._numbers
        return layer.boxed_total(low, high)

    @property
    def _bounds(self) -> tuple[PixelBound, PixelBound]:
        assert self.low is not None
        assert self.high is not None  # see __post_init__
        return self.low, self.high

    @property
    def _numbers(self) -> tuple[float | Tensor, float | Tensor]:
        low, high = self._bounds
        if isinstance(low, str) or isinstance(high, str):
            raise ValueError(
                'a box of the data must be the rule of the pixels: Composite(..., pixels=ZBox("data", "data"))'
            )
        return low, high


@dataclass(frozen=True)
class WSquare(Rule):
    """w^2: R_i = sum_j w_ij^2 / sum_i' w_i'j^2 R_j, whatever the inputs are [MLB+17]; no bias."""

    sharing = PROPORTIONAL
    zero_gets_nothing = False
    plain = False
    adapts = True

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """The squared weights."""
        return layer.of_weights("ones" if channel is Channel.COUNT else "square")


@dataclass(frozen=True)
class Flat(Rule):
    """All inputs of a unit get the same share of its relevance, whatever inputs and weights are; no bias.

    A weight that is exactly 0 (pruned, masked) is no connection.
    """

    sharing = PROPORTIONAL
    zero_gets_nothing = False
    plain = False
    adapts = True

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """One for each input."""
        return layer.of_weights("ones")
