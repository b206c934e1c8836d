"""A linear map as the rules see it: products of an input and constant weights, summed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rnnx_lightning.explain.pixels import Pixels

# "minus" is the magnitude of the negative part, so that all parts but "all" are >= 0. The last two are for
# inputs with two sides that are put beside each other: [plus, minus] and [minus, plus].
WeightPart = Literal["all", "plus", "minus", "square", "ones", "plus minus", "minus plus"]


@dataclass(frozen=True)
class Operation:
    """What is linear in an input and in a weight.

    Attributes:
        apply: (input, weight) to the output, without bias. Where the operation has no weight (a sum, an
            average) the second argument is not used, and all weights are >= 0.
        transpose: (output-shaped factors, weight, shape of the input) to sum_j w_ij f_j, of the input's shape;
            None: autograd finds it, if there is no `matrix` either.
        matrix: from a weight to the matrix by which factors are multiplied to be transposed, for matrix products.
        beside: along these dimensions of the input and of the weight two inputs can be put side by side, so
            that the operation sums over both; None where that is not possible.
    """

    apply: Callable[[Tensor, Any], Tensor]
    transpose: Callable[[Tensor, Any, torch.Size], Tensor] | None = None
    beside: tuple[int, int] | None = None
    matrix: Callable[[Tensor], Tensor] | None = None

    @property
    def transposable(self) -> bool:
        """It is known how to transpose it; the first dimension counts examples."""
        return self.transpose is not None or self.matrix is not None


class WeightParts:
    """Positive parts of weights and the like, made once an explanation however often a layer is called."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, WeightPart], tuple[Tensor, Tensor]] = {}
        self._nonnegative: dict[int, tuple[Tensor, bool]] = {}

    def __call__(self, weight: Tensor, part: WeightPart, beside: int = 0) -> Tensor:
        """The asked-for part of a weight; the weight itself is kept so that its id stays its own."""
        key = (id(weight), part)
        if key not in self._parts:
            self._parts[key] = (weight, self._make(weight, part, beside))
        return self._parts[key][1]

    def nonnegative(self, weight: Tensor) -> bool:
        """Whether no weight is negative."""
        key = id(weight)
        if key not in self._nonnegative:
            self._nonnegative[key] = (weight, weight.numel() == 0 or bool(weight.detach().amin() >= 0))
        return self._nonnegative[key][1]

    def _make(self, weight: Tensor, part: WeightPart, beside: int) -> Tensor:
        plain = weight.detach()
        if part == "all":
            return plain
        if part == "plus":
            return plain.clamp(min=0)
        if part == "minus":
            return plain.clamp(max=0).neg_()
        if part == "square":
            return plain.square()
        if part == "ones":
            return (plain != 0).to(plain.dtype)  # a weight that is exactly 0 is no connection
        sides = [self(weight, "plus"), self(weight, "minus")]
        both = torch.cat(sides if part == "plus minus" else sides[::-1], dim=beside)
        # Of a convolution with one input channel the sides do not tell how the weight lies.
        channels_last = weight.dim() == 4 and weight.stride(1) < weight.stride(2)
        return both.contiguous(memory_format=torch.channels_last) if channels_last else both


class Product:
    """Some values times some weights: summed forward, and transposed backward.

    Attributes:
        value: of the input's shape, or two of them side by side.
    """

    def __init__(self, operation: Operation, value: Tensor, weight: Tensor | None, fold: int | None) -> None:
        self.value = value
        self._operation = operation
        self._weight = weight
        self._fold = fold
        self._graph: tuple[Tensor, Tensor] | None = None

    def scaled(self, factor: float) -> "Product":
        """All of it times a number."""
        return Product(self._operation, factor * self.value, self._weight, self._fold)

    def total(self) -> Tensor:
        """sum_i v_i w_ij."""
        if self._operation.transposable:
            return self._operation.apply(self.value, self._weight)
        if self._graph is None:
            with torch.enable_grad():
                leaf = self.value.detach().requires_grad_()
                self._graph = leaf, self._operation.apply(leaf, self._weight)
        return self._graph[1].detach()

    def transposed(self, factors: Tensor, before: Tensor | None = None) -> Tensor:
        """sum_j w_ij f_j, of the shape of `value`; `before`, what another part of the operation gave, is added."""
        if before is None:
            return self._transposed(factors)
        if self._operation.matrix is None or self._weight is None:
            return before + self._transposed(factors)
        before.view(-1, before.shape[-1]).addmm_(factors.flatten(0, -2), self._operation.matrix(self._weight))
        return before  # a product is in memory of its own

    def _transposed(self, factors: Tensor) -> Tensor:
        if self._operation.matrix is not None and self._weight is not None:
            return factors @ self._operation.matrix(self._weight)
        if self._operation.transpose is not None:
            return self._operation.transpose(factors, self._weight, self.value.shape)
        self.total()
        assert self._graph is not None  # made by total()
        leaf, result = self._graph
        return torch.autograd.grad(result, leaf, factors, retain_graph=True)[0]

    def folded(self, relevance: Tensor) -> Tensor:
        """Relevance of `value` to that of the input: two sides are added up."""
        if self._fold is None:
            return relevance
        one, other = relevance.chunk(2, dim=self._fold)
        return one + other


class Channel(NamedTuple):
    """A sum of contributions, of the shape of the layer's output.

    Attributes:
        total: the sum; bias included.
        products: what the contributions are, without the bias.
        by_value: the layer's output is the sum of its first channel less that of its second, so that who knows
            the output needs only the other sum. `total` of the first may then be 0, where only outputs that are
            positive in the end matter.
    """

    total: Tensor
    products: list[Product]
    by_value: bool = False


@dataclass(slots=True)
class LinearMap:
    """One call of a linear operation.

    Attributes:
        value: the input; None for a bias that is added alone.
        operation: what is done.
        weight: the constant factor, or None.
        bias: what is added, broadcastable to the output, or None.
        nonnegative: the input is known to be >= 0 where it is no pixel.
        pixels: bounds of the input where it is made of pixels.
        parts: cache of parts of weights.
        where: restricts the contributions to some entries of the input; None for all.
        output: sum_i a_i w_ij + b_j, where it is known.
        active_only: sums need be exact only for outputs that are positive in the end: ReLU follows.
    """

    value: Tensor | None
    operation: Operation
    weight: Tensor | None
    bias: Tensor | None
    nonnegative: bool
    pixels: Pixels | None
    parts: WeightParts
    where: Tensor | None = None
    output: Tensor | None = None
    active_only: bool = False
    _all: Product | None = field(default=None, repr=False)
    _sides: list[Tensor] | None = field(default=None, repr=False)

    def on_pixels(self, where: Tensor) -> "LinearMap":
        """The same map with the contributions of pixels alone, without bias."""
        return replace(self, where=where, bias=None, output=None, _all=None, _sides=None)

    def on_features(self, where: Tensor) -> "LinearMap":
        """The same map with the contributions of what is no pixel, and with the bias."""
        return replace(self, where=where, pixels=None, output=None, _all=None, _sides=None)

    def net(self) -> Channel:
        """sum_i a_i w_ij + b_j."""
        products = self._plain()
        total = self.output
        if total is None:
            total = self._plus_bias(self._sum(products), lambda bias: bias)
        return Channel(total, products, by_value=True)

    def positive(self) -> Channel:
        """sum_i (a_i w_ij)+ + (b_j)+."""
        products = self._signed("plus", "minus")
        return Channel(self._plus_bias(self._sum(products), lambda bias: bias.clamp(min=0)), products)

    def negative(self) -> Channel:
        """sum_i |(a_i w_ij)-|, >= 0; without the bias."""
        products = self._signed("minus", "plus")
        return Channel(self._sum(products), products)

    def positive_and_negative(self) -> tuple[Channel, Channel | None]:
        """Both; None where nothing can be negative.

        For outputs that are positive in the end z+ = z + |z-| has no cancellation, and needs no product.
        """
        by_value = self.bias is None
        products = self._signed("minus", "plus")
        if not products:
            return self.positive()._replace(by_value=by_value), None
        negative = Channel(self._sum(products), products, by_value)
        if not by_value or not self.active_only:
            return self.positive()._replace(by_value=by_value), negative
        left_out = negative.total.new_zeros(()).expand(negative.total.shape)
        return Channel(left_out, self._signed("plus", "minus"), by_value), negative

    def boxed(self, low: float | Tensor, high: float | Tensor) -> Channel:
        """sum_i (a_i - low) w+_ij + (high - a_i) |w-_ij|; without the bias."""
        if self.value is None:
            return Channel(self._sum([]), [])
        if self.pixels is not None:
            low, high = self.pixels.bounds(low, high)
        if self.weight is None:
            products = [self._product(self.value - low, "plus")]
        elif self.operation.beside is None or self.where is not None:
            products = [self._product(self.value - low, "plus"), self._product(high - self.value, "minus")]
        else:
            dim, weight_dim = self.operation.beside
            both, above, below = self._two_sides(self.value, dim)
            torch.sub(self.value, low, out=above)
            torch.neg(self.value, out=below).add_(high)
            weight = self.parts(self.weight, "plus minus", weight_dim)
            products = [Product(self.operation, both, weight, fold=dim)]
        total = self._boxed_total(low, high)
        return Channel(self._sum(products) if total is None else total, products)

    def squared_weights(self) -> Channel:
        """sum_i w_ij^2 over the entries that there are (padding is none)."""
        return self._of_ones("square")

    def ones(self) -> Channel:
        """The number of entries that output j is made of."""
        return self._of_ones("ones")

    def _boxed_total(self, low: float | Tensor, high: float | Tensor) -> Tensor | None:
        """sum_i a_i w_ij - low w+_ij - high w-_ij: the net input, and what is the same for all examples.

        A positive net input has no cancellation here, as -low w+ and -high w- are >= 0 where low <= 0 <= high.
        """
        if not self.active_only or not self.operation.transposable or self.weight is None:
            return None
        if (
            self.value is None
            or self.output is None
            or self.bias is not None
            or isinstance(low, Tensor)
            or isinstance(high, Tensor)
            or not low <= 0 <= high
        ):
            return None
        one = torch.ones_like(self.value[:1])
        constant = self.operation.apply(one * high, self._part("minus"))
        constant -= self.operation.apply(one * low, self._part("plus"))
        return (self.output + constant).clamp_(min=0)

    def _of_ones(self, part: WeightPart) -> Channel:
        products = [] if self.value is None else [self._product(torch.ones_like(self.value), part)]
        return Channel(self._sum(products), products)

    def _plain(self) -> list[Product]:
        """The product of input and weights as they are; the same one each time, with its graph if it has one."""
        if self.value is None:
            return []
        if self._all is None:
            self._all = self._product(self.value, "all")
        return [self._all]

    def _signed(self, of_positive: WeightPart, of_negative: WeightPart) -> list[Product]:
        """Products >= 0: positive inputs with one part of the weights, negative ones with the other."""
        value = self.value
        if value is None:
            return []
        if self.nonnegative and self.pixels is None:
            if self._weights_nonnegative:
                return self._plain() if of_positive == "plus" else []
            return [self._product(value, of_positive)]
        if self.weight is None:  # all weights are positive
            side = value.clamp(min=0) if of_positive == "plus" else value.clamp(max=0).neg_()
            return [self._product(side, "all")]
        sides = self._by_sign(value)
        if self.operation.beside is None:
            return [self._product(sides[0], of_positive), self._product(sides[1], of_negative)]
        # A signed input is an input >= 0 of twice the width: one product, not two.
        dim, weight_dim = self.operation.beside
        part: WeightPart = "plus minus" if of_positive == "plus" else "minus plus"
        weight = self.parts(self.weight, part, weight_dim)
        return [Product(self.operation, sides[0], weight, fold=dim)]

    @property
    def _weights_nonnegative(self) -> bool:
        return self.weight is None or self.parts.nonnegative(self.weight)

    def _by_sign(self, value: Tensor) -> list[Tensor]:
        """Magnitudes of positive and negative entries: two tensors, or one with both beside each other."""
        if self._sides is None:
            value = self._chosen(value)
            if self.operation.beside is None:
                self._sides = [value.clamp(min=0), value.clamp(max=0).neg_()]
            else:
                both, above, below = self._two_sides(value, self.operation.beside[0])
                torch.clamp(value, min=0, out=above)
                torch.clamp(value, max=0, out=below).neg_()
                self._sides = [both]
        return self._sides

    @staticmethod
    def _two_sides(value: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Memory for two tensors like `value` beside each other: all of it, and either half."""
        shape = list(value.shape)
        shape[dim] *= 2
        both = value.new_empty(shape)
        above, below = both.chunk(2, dim=dim)
        return both, above, below

    def _product(self, value: Tensor, part: WeightPart) -> Product:
        return Product(self.operation, self._chosen(value), self._part(part), fold=None)

    def _chosen(self, value: Tensor) -> Tensor:
        return value if self.where is None else torch.where(self.where, value, 0.0)

    def _part(self, part: WeightPart) -> Tensor | None:
        return None if self.weight is None else self.parts(self.weight, part)

    def _sum(self, products: list[Product]) -> Tensor:
        if not products:
            if self.output is not None:
                return torch.zeros_like(self.output)
            return torch.zeros(()) if self.bias is None else self.bias.new_zeros(())
        first, *more = [product.total() for product in products]
        return sum(more, start=first)

    def _plus_bias(self, total: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        return total if self.bias is None else total + part(self.bias)
