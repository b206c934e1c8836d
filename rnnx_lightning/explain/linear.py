"""A linear map as the rules see it: products of an input and constant weights, summed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
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


IDENTITY = Operation(lambda a, _: a, lambda factors, _, shape: factors)


def held(tensor: Tensor) -> Tensor:
    """A tensor as a constant: with the graph that it has only if gradients of the relevance are asked for."""
    return tensor.view_as(tensor) if torch.is_grad_enabled() else tensor.detach()


def leaf_of(value: Tensor) -> Tensor:
    """The same values to be differentiated by, whatever else is made of them; with the graph that they have."""
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()


class WeightParts:
    """Positive parts of weights and the like, made once an explanation however often a layer is called."""

    def __init__(self) -> None:
        self._parts: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self._nonnegative: dict[tuple[object, ...], tuple[Tensor, bool]] = {}

    def __call__(self, weight: Tensor, part: WeightPart, beside: int = 0) -> Tensor:
        """The asked-for part of a weight; the weight itself is kept so that its memory stays its own."""
        if part == "all":
            return held(weight)
        key = (*self._key(weight), part)
        if key not in self._parts:
            self._parts[key] = (weight, self._make(weight, part, beside))
        return self._parts[key][1]

    def nonnegative(self, weight: Tensor) -> bool:
        """Whether no weight is negative."""
        key = self._key(weight)
        if key not in self._nonnegative:
            self._nonnegative[key] = (weight, weight.numel() == 0 or bool(weight.detach().amin() >= 0))
        return self._nonnegative[key][1]

    @staticmethod
    def _key(weight: Tensor) -> tuple[object, ...]:
        # By memory: `F.linear` makes a new view of its weight at each call. With a graph each view has its own.
        return id(weight) if torch.is_grad_enabled() else weight.data_ptr(), weight.shape, weight.stride()

    def _make(self, weight: Tensor, part: WeightPart, beside: int) -> Tensor:
        plain = held(weight)
        if part == "plus":
            return plain.clamp(min=0)
        if part == "minus":
            return plain.clamp(max=0).neg()
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

    def __init__(
        self, operation: Operation, value: Tensor, weight: Tensor | None, fold: int | None, sign: float = 1.0
    ) -> None:
        self.value = value
        self.sign = sign
        self._operation = operation
        self._weight = weight
        self._fold = fold
        self._graph: tuple[Tensor, Tensor] | None = None

    def total(self) -> Tensor:
        """sum_i v_i w_ij."""
        if self._operation.transposable:
            return self._operation.apply(self.value, self._weight)
        if self._graph is None:
            with torch.enable_grad():
                leaf = leaf_of(self.value)
                self._graph = leaf, self._operation.apply(leaf, self._weight)
        return self._graph[1] if torch.is_grad_enabled() else self._graph[1].detach()

    def transposed(self, factors: Tensor, before: Tensor | None = None) -> Tensor:
        """sum_j w_ij f_j, of the shape of `value`; `before`, what another part of the operation gave, is added."""
        if before is None:
            return self._transposed(factors)
        if self._operation.matrix is None or self._weight is None or torch.is_grad_enabled():
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
        graph = torch.is_grad_enabled()
        return torch.autograd.grad(result, leaf, factors, retain_graph=True, create_graph=graph)[0]

    def folded(self, relevance: Tensor) -> Tensor:
        """Relevance of `value` to that of the input: two sides are added up."""
        if self._fold is None:
            return relevance
        one, other = relevance.chunk(2, dim=self._fold)
        return one + other


@dataclass(slots=True)
class LinearMap:
    """One call of a linear operation.

    Attributes:
        value: the input.
        operation: what is done.
        weight: the constant factor, or None.
        bias: what is added, broadcastable to the output, or None.
        nonnegative: the input is known to be >= 0 where it is no pixel.
        pixels: bounds of the input where it is made of pixels.
        parts: cache of parts of weights.
        where: restricts the contributions to some entries of the input; None for all.
        present: False where an entry of the input is padding; None for nowhere.
        output: sum_i a_i w_ij + b_j, where it is known.
        active_only: sums need be exact only for outputs that are positive in the end: ReLU follows.
    """

    value: Tensor
    operation: Operation
    weight: Tensor | None
    bias: Tensor | None
    nonnegative: bool
    pixels: Pixels | None
    parts: WeightParts
    where: Tensor | None = None
    present: Tensor | None = None
    output: Tensor | None = None
    active_only: bool = False
    _sides: list[Tensor] | None = field(default=None, repr=False)

    def plain(self, channel: Channel) -> list[Product]:
        """Contributions a_i w_ij."""
        if channel is Channel.NET:
            return [self._product(self.value, "all")]
        if channel is Channel.POSITIVE:
            return self._signed("plus", "minus")
        if channel is Channel.NEGATIVE:
            return self._signed("minus", "plus")
        return self.of_weights("ones")

    def known_total(self, channel: Channel) -> Tensor | None:
        """The output, if that is the sum of a channel."""
        positive = channel is Channel.POSITIVE and self.nonnegative and self.pixels is None and self.weight is None
        return (
            self.output
            if self.bias is None and self.where is None and (positive or channel is Channel.NET)
            else None
        )

    def boxed(self, channel: Channel, low: float | Tensor, high: float | Tensor) -> list[Product]:
        """Contributions a_i w_ij - low w+_ij - high w-_ij, all >= 0; negative: of the negated map."""
        if channel is Channel.COUNT:
            return self.of_weights("ones")
        if self.pixels is not None:
            low, high = self.pixels.bounds(low, high)
        flip = channel is Channel.NEGATIVE
        if self.weight is None:
            return [self._product(high - self.value if flip else self.value - low, "plus")]
        one: WeightPart = "minus" if flip else "plus"
        other: WeightPart = "plus" if flip else "minus"
        if self.operation.beside is None or self.where is not None or torch.is_grad_enabled():
            return [self._product(self.value - low, one), self._product(high - self.value, other)]
        dim, weight_dim = self.operation.beside
        both, above, below = self._two_sides(self.value, dim)
        torch.sub(self.value, low, out=above)
        torch.neg(self.value, out=below).add_(high)
        weight = self.parts(self.weight, "minus plus" if flip else "plus minus", weight_dim)
        return [Product(self.operation, both, weight, fold=dim)]

    def boxed_total(self, low: float | Tensor, high: float | Tensor) -> Tensor | None:
        """sum_i a_i w_ij - low w+_ij - high w-_ij: the net input, and what is the same for all examples.

        A positive net input has no cancellation here, as -low w+ and -high w- are >= 0 where low <= 0 <= high.
        """
        if not self.active_only or not self.operation.transposable or self.weight is None:
            return None
        if self.pixels is not None:
            low, high = self.pixels.bounds(low, high)
        if (
            self.output is None
            or self.bias is not None
            or self.where is not None
            or isinstance(low, Tensor)
            or isinstance(high, Tensor)
            or not low <= 0 <= high
        ):
            return None
        one = torch.ones_like(self.value[:1])
        constant = self.operation.apply(one * high, self._part("minus"))
        constant = constant - self.operation.apply(one * low, self._part("plus"))
        return (self.output + constant).clamp(min=0)

    def of_weights(self, part: Literal["square", "ones"]) -> list[Product]:
        """The squared weights, or one for each that is not 0, of the entries that there are (padding is none)."""
        ones = torch.ones_like(self.value)
        if self.present is not None:
            ones = ones * self.present
        return [self._product(ones, part)]

    def _signed(self, of_positive: WeightPart, of_negative: WeightPart) -> list[Product]:
        """Products >= 0: positive inputs with one part of the weights, negative ones with the other."""
        value = self.value
        if self.nonnegative and self.pixels is None:
            if self.weight is None or self.parts.nonnegative(self.weight):
                return [self._product(value, "all")] if of_positive == "plus" else []
            return [self._product(value, of_positive)]
        if self.weight is None:  # all weights are positive
            side = value.clamp(min=0) if of_positive == "plus" else value.clamp(max=0).neg()
            return [self._product(side, "all")]
        sides = self._by_sign(value)
        if len(sides) == 2 or self.operation.beside is None:
            return [self._product(sides[0], of_positive), self._product(sides[1], of_negative)]
        # A signed input is an input >= 0 of twice the width: one product, not two.
        dim, weight_dim = self.operation.beside
        part: WeightPart = "plus minus" if of_positive == "plus" else "minus plus"
        weight = self.parts(self.weight, part, weight_dim)
        return [Product(self.operation, sides[0], weight, fold=dim)]

    def _by_sign(self, value: Tensor) -> list[Tensor]:
        """Magnitudes of positive and negative entries: two tensors, or one with both beside each other."""
        if self._sides is None:
            value = self._chosen(value)
            if self.operation.beside is None or torch.is_grad_enabled():
                self._sides = [value.clamp(min=0), value.clamp(max=0).neg()]
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


def relevance_of_input(products: list[tuple[Product, Tensor]]) -> Tensor | None:
    """The relevance of an input: its products, transposed with the factor of their channel."""
    parts: dict[int, tuple[Product, Tensor, list[Tensor]]] = {}  # by the value that they are multiplied with
    for product, factor in products:
        factor = factor if product.sign == 1 else product.sign * factor
        key = id(product.value)
        if key in parts:
            _, before, factors = parts[key]
            parts[key] = product, product.transposed(factor, before), [*factors, factor]
        else:
            parts[key] = product, product.transposed(factor), [factor]
    relevance = None
    for product, part, factors in parts.values():
        own = product.folded(_times(part, product.value, factors))
        relevance = own if relevance is None else relevance + own
    return relevance


def _times(part: Tensor, value: Tensor, borrowed: list[Tensor]) -> Tensor:
    """Part * value, in place if the memory of `part` is its own."""
    if torch.is_grad_enabled():
        return part * value
    memory = part.untyped_storage()
    own = all(factor.untyped_storage().data_ptr() != memory.data_ptr() for factor in borrowed)
    whole = memory.nbytes() == part.numel() * part.element_size()  # not expanded, no view of a larger one
    return part.mul_(value) if own and whole and part.dtype == value.dtype else part * value
