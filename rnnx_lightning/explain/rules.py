"""Rules of layer-wise relevance propagation: how a linear map divides the relevance of its outputs.

A rule declares which products of inputs and weights count as contributions, and how relevance is divided among
them. A unit j with relevance R_j gives input i a part in proportion to the contribution of i.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.linear import LinearMap, Product
from rnnx_lightning.explain.refusals import PixelRangeWarning, warn
from rnnx_lightning.explain.sharing import Proportional, Sharing, Signed, TwoSided

PixelBound = float | Tensor | Literal["data"]

PROPORTIONAL = Proportional()


class Rule(ABC):
    """The base class of rules.

    Attributes:
        zero_gets_nothing: an input of 0 contributes nothing.
        plain: contributions are a_i w_ij, which add up to the net input.
        adapts: in a sum with terms of other rules, it divides relevance in their way. Such a rule ignores biases.
    """

    zero_gets_nothing: bool = True
    plain: bool = True
    adapts: bool = False

    @property
    @abstractmethod
    def sharing(self) -> Sharing:
        """How relevance is divided among the channels. Linear maps that are summed need the same sharing."""

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """The contributions of one channel, as products; an empty list if there are none."""
        return layer.plain(channel)

    def total(self, layer: LinearMap, channel: Channel) -> Tensor | None:
        """The total of a channel, if there is a shorter way than summing its products; else None."""
        return None

    def scaled(self, factor: Tensor | float) -> Tensor | float:
        """What contributions are multiplied with if all weights are multiplied with a factor >= 0."""
        return factor

    def fitted(self, inputs: Sequence[Tensor]) -> "Rule":
        """The rule, fitted to inputs (B, ...): it may take bounds from them, or warn if they lie outside."""
        return self


@dataclass(frozen=True)
class ZPlus(Rule):
    """z+ (alpha 1, beta 0): R_i = sum_j (a_i w_ij)+ / sum_i' (a_i' w_i'j)+ * R_j [Bach et al., 2015].

    Deep Taylor decomposition uses it for layers that do not read pixels [MLB+17]. A positive bias gets its share
    of the relevance; a negative one is ignored.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(ZPlus())(model, torch.ones(1, 3))  # the logit is 2
        tensor([[0.5000, 1.5000, 0.0000]])
    """

    sharing = PROPORTIONAL


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """R_i = sum_j (alpha (a_i w_ij)+ / z+_j - beta (a_i w_ij)- / z-_j) R_j, alpha - beta = 1 [Bach et al., 2015].

    A positive bias is part of z+; a negative one is ignored. If there are no contributions to z+_j or none to
    z-_j, the others get all of R_j.

    Attributes:
        alpha: weight of the positive contributions, >= 1.
        beta: weight of the negative contributions, >= 0.

    Raises:
        ValueError: alpha - beta is not 1, or beta is negative.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(AlphaBeta(1.5, 0.5))(model, torch.ones(1, 3))  # the logit is 2
        tensor([[ 0.7500,  2.2500, -1.0000]])
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not (abs(self.alpha - self.beta - 1) <= 1e-9 and self.beta >= 0):  # NaN is refused, too
            raise ValueError(f"alpha={self.alpha}, beta={self.beta}: alpha - beta must be 1 and beta >= 0")

    @cached_property
    def sharing(self) -> Sharing:
        """Two-sided, or proportional if beta is 0."""
        return TwoSided(self.alpha, self.beta) if self.beta else PROPORTIONAL


def _check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value} must be at least 0 and finite")


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = sum_j a_i w_ij / (z_j + epsilon sign(z_j)) R_j [Bach et al., 2015]; the bias gets its share.

    Attributes:
        epsilon: stabiliser >= 0.

    Raises:
        ValueError: epsilon is negative or not finite.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(Epsilon())(model, torch.ones(1, 3))  # the logit is 2
        tensor([[ 1.0000,  3.0000, -2.0000]])
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_not_negative("epsilon", self.epsilon)

    @cached_property
    def sharing(self) -> Sharing:
        """In proportion to the contributions, with a stabiliser."""
        return Signed(self.epsilon)


@dataclass(frozen=True)
class Gamma(Rule):
    """R_i = sum_j (a_i w_ij + gamma (a_i w_ij)+) / sum_i' (...) R_j [Montavon et al., 2019].

    If the net input is negative, negative contributions are favoured instead.

    Attributes:
        gamma: how much contributions with the sign of the net input are favoured, >= 0.

    Raises:
        ValueError: gamma is negative or not finite.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(Gamma(0.5))(model, torch.ones(1, 3))  # the logit is 2
        tensor([[ 0.7500,  2.2500, -1.0000]])
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        _check_not_negative("gamma", self.gamma)

    @cached_property
    def sharing(self) -> Sharing:
        """In proportion to the contributions, with one sign favoured."""
        return Signed(0.0, self.gamma)


@dataclass(frozen=True)
class ZBox(Rule):
    """z^B for inputs in [low, high]: contributions x_i w_ij - low w+_ij - high w-_ij [MLB+17]; biases are ignored.

    This equals (x_i - low) w+_ij + (x_i - high) w-_ij, so contributions are never negative.

    Attributes:
        low: the smallest possible value of an input: a number, a tensor that broadcasts to the input (such as one
            bound per channel), or "data" for the smallest value among the explained inputs. Default: -1, or "data"
            if `high` is "data".
        high: the largest possible value. Default: 1, or "data" if `low` is "data".

    Raises:
        ValueError: low is not below high.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP, Composite
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(Composite(ZPlus(), pixels=ZBox(-1, 1)))(model, torch.ones(1, 3))  # the logit is 2
        tensor([[0.5000, 1.5000, 0.0000]])
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
                raise ValueError(f'a bound must be a number, a tensor or "data", got {wrong.pop()!r}')
        elif not bool(torch.as_tensor(low < high).all()):
            raise ValueError(f"low={low} must be below high={high}")

    def fitted(self, inputs: Sequence[Tensor]) -> "ZBox":
        """Replaces "data" by the bounds of all inputs; warns if inputs lie outside the bounds."""
        ranges = [torch.aminmax(part.detach()) for part in inputs if part.numel()]
        # If there are no pixels, as in a batch of no examples, any bounds will do.
        least = min((float(low) for low, _ in ranges), default=0.0)
        greatest = max((float(high) for _, high in ranges), default=0.0)
        asked_low, asked_high = self._bounds
        if math.isnan(least) and (isinstance(asked_low, str) or isinstance(asked_high, str)):
            raise ValueError('the input has NaN, so there are no bounds of the "data"')
        low = least if isinstance(asked_low, str) else asked_low
        high = greatest if isinstance(asked_high, str) else asked_high
        if isinstance(asked_high, str) and not bool(torch.as_tensor(low < high).all()):
            high = low + 1  # all inputs are equal
        # Bounds that differ between entries are those of the inputs whose shape they have.
        compared = [part for part in inputs if _broadcasts(low, part) and _broadcasts(high, part)]
        if not compared:
            own = [tuple(torch.as_tensor(bound).shape) for bound in (low, high)]
            shapes = ", ".join(str(tuple(part.shape)) for part in inputs)
            raise ValueError(f"low and high of shapes {own[0]} and {own[1]} fit no input, of shapes {shapes}")
        count = sum(part.numel() for part in compared)
        if outside := sum(int(((part < low) | (part > high)).sum()) for part in compared):
            warn(
                f"{outside} of {count} inputs lie outside the bounds [{low}, {high}] of z^B, so their "
                f"relevance may be wrong. The inputs range from {least:g} to {greatest:g}: use these as "
                'bounds, or low="data" and high="data".',
                PixelRangeWarning,
            )
        return ZBox(low, high)

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """x_i w_ij - low w+_ij - high w-_ij."""
        low, high = self._numbers
        return layer.boxed(channel, low, high)

    def total(self, layer: LinearMap, channel: Channel) -> Tensor | None:
        """From the net input, if ReLU follows."""
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
                'ZBox with "data" can only be the rule for pixels: Composite(..., pixels=ZBox("data", "data"))'
            )
        return low, high


def _broadcasts(bound: float | Tensor, part: Tensor) -> bool:
    """Whether a bound has a value for each entry of an input."""
    if not isinstance(bound, Tensor):
        return True
    sizes = zip(reversed(bound.shape), reversed(part.shape), strict=False)
    return bound.dim() <= part.dim() and all(size in (1, length) for size, length in sizes)


@dataclass(frozen=True)
class WSquare(Rule):
    """w^2: R_i = sum_j w_ij^2 / sum_i' w_i'j^2 R_j, independent of the inputs [MLB+17]; biases are ignored.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(WSquare())(model, torch.ones(1, 3))  # the logit is 2
        tensor([[0.1429, 1.2857, 0.5714]])
    """

    sharing = PROPORTIONAL
    zero_gets_nothing = False
    plain = False
    adapts = True

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """The squared weights."""
        return layer.of_weights("ones" if channel is Channel.COUNT else "square")

    def scaled(self, factor: Tensor | float) -> Tensor | float:
        """The square."""
        return factor * factor


@dataclass(frozen=True)
class Flat(Rule):
    """All inputs of a unit get the same share of its relevance; biases are ignored.

    A weight of exactly 0 (pruned, masked) is not a connection.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP
        >>> model = nn.Linear(3, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0, 3.0, -2.0]])
        >>> LRP(Flat())(model, torch.ones(1, 3))  # the logit is 2
        tensor([[0.6667, 0.6667, 0.6667]])
    """

    sharing = PROPORTIONAL
    zero_gets_nothing = False
    plain = False
    adapts = True

    def contributions(self, layer: LinearMap, channel: Channel) -> list[Product]:
        """1 for each connection."""
        return layer.of_weights("ones")

    def scaled(self, factor: Tensor | float) -> Tensor | float:
        """1, or 0 if the connection is cut."""
        return (factor != 0).to(factor.dtype) if isinstance(factor, Tensor) else float(factor != 0)
