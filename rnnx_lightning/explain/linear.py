"""A linear map as the rules see it: products of an input and constant weights, summed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.sharing import Contribution

WeightPart = Literal["all", "plus", "minus", "square", "ones"]


class WeightParts:
    """Positive parts of weights and the like, made once an explanation however often a layer is called."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, WeightPart], tuple[Tensor, Tensor]] = {}

    def __call__(self, weight: Tensor, part: WeightPart) -> Tensor:
        """The asked-for part of a weight; the weight itself is kept so that its id stays its own."""
        key = (id(weight), part)
        if key not in self._parts:
            self._parts[key] = (weight, _PARTS[part](weight.detach()))
        return self._parts[key][1]


_PARTS: dict[WeightPart, Callable[[Tensor], Tensor]] = {
    "all": lambda weight: weight,
    "plus": lambda weight: weight.clamp(min=0),
    "minus": lambda weight: weight.clamp(max=0),
    "square": torch.square,
    "ones": torch.ones_like,
}


@dataclass
class LinearMap:
    """One call of a linear operation.

    Attributes:
        source: the input, with its graph; the gradient that it gets is its relevance.
        apply: the operation without bias, linear in both of its arguments (input, weight). Where the operation
            has no weight (a sum, an average) the second argument is not used, and all weights are >= 0.
        weight: the constant factor, or None.
        bias: what is added, broadcastable to the output, or None.
        nonnegative: the input is known to be >= 0 where it is no pixel.
        pixels: bounds of the input where it is made of pixels.
        parts: cache of parts of weights.
        where: restricts the contributions to some entries of the input; None for all.
    """

    source: Tensor
    apply: Callable[[Tensor, Any], Tensor]
    weight: Tensor | None
    bias: Tensor | None
    nonnegative: bool
    pixels: Pixels | None
    parts: WeightParts
    where: Tensor | None = None
    _net: Tensor | None = field(default=None, repr=False)

    def on_pixels(self, where: Tensor) -> "LinearMap":
        """The same map with the contributions of pixels alone, without bias."""
        return replace(self, where=where, bias=None, _net=None)

    def on_features(self, where: Tensor) -> "LinearMap":
        """The same map with the contributions of what is no pixel, and with the bias."""
        return replace(self, where=where, pixels=None, _net=None)

    def net(self) -> Tensor:
        """sum_i a_i w_ij + b_j; computed once."""
        if self._net is None:
            self._net = self._plus_bias(self._sum(self.source.detach(), self._part("all")), lambda bias: bias)
        return self._net

    def positive(self) -> Tensor:
        """sum_i (a_i w_ij)+ + (b_j)+."""
        return self._plus_bias(self._signed("plus", "minus"), lambda bias: bias.clamp(min=0))

    def negative(self) -> Tensor:
        """sum_i (a_i w_ij)-, <= 0; without the bias."""
        return self._signed("minus", "plus")

    def boxed(self, low: float | Tensor, high: float | Tensor) -> Tensor:
        """sum_i (a_i - low) w+_ij + (a_i - high) w-_ij."""
        if self.pixels is not None:
            low, high = self.pixels.bounds(low, high)
        value = self.source.detach()
        total = self._sum(value - low, self._part("plus"))
        return total if self.weight is None else total + self._sum(value - high, self._part("minus"))

    def squared_weights(self) -> Tensor:
        """sum_i w_ij^2 over the entries that there are (padding is none)."""
        return self._sum(torch.ones_like(self.source), self._part("square"))

    def ones(self) -> Tensor:
        """The number of entries that output j is made of."""
        return self._sum(torch.ones_like(self.source), self._part("ones"))

    def _signed(self, of_positive: WeightPart, of_negative: WeightPart) -> Tensor:
        """Contributions of positive inputs with one part of the weights, of negative ones with the other."""
        value = self.source.detach()
        if self.weight is None:
            return self._sum(value.clamp(min=0) if of_positive == "plus" else value.clamp(max=0), None)
        if self.nonnegative and self.pixels is None:
            return self._sum(value, self._part(of_positive))
        return self._sum(value.clamp(min=0), self._part(of_positive)) + self._sum(
            value.clamp(max=0), self._part(of_negative)
        )

    def _part(self, part: WeightPart) -> Tensor | None:
        return None if self.weight is None else self.parts(self.weight, part)

    def _sum(self, value: Tensor, weight: Tensor | None) -> Tensor:
        if self.where is not None:
            value = torch.where(self.where, value, 0.0)
        return self.apply(Contribution.apply(self.source, value), weight)

    def _plus_bias(self, total: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        return total if self.bias is None else total + part(self.bias)
